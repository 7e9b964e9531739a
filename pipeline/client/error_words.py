"""Phrases by which servers tell, in a message only, that an account has no money or that the content policy refused.

Their messages may repeat the prompt, so what is quoted is taken out before a phrase counts; before one of money also
what follows "prompt:", since it stops the provider.
"""

# ruff: noqa: RUF001 - the words of other languages have letters that look like Latin ones

from __future__ import annotations

import functools
import re

_NO = (
    r"(?:insufficient|exhausted|depleted|too low|not enough|not sufficient|negative|used up|run out|ran out|empty|zero)"
)
_MONEY = r"(?:balances?|credits?|funds|quota|wallet)"
_LIMIT = r"(?:spend(?:ing)?|credit|billing|budget|usage)"
_ENGLISH = (
    rf"insufficient (?:[\w-]+ ){{0,3}}{_MONEY}\b",
    rf"\b{_MONEY}\b(?: \w+){{0,3}} (?:(?:is|are|was|has been|have been|has|have) )?(?:\w+ )?{_NO}\b",
    rf"\b(?:exhausted|depleted) (?:[\w-]+ ){{0,3}}{_MONEY}\b",
    rf"(?:\bnot|n['’]?t) have (?:any |enough |sufficient |the )(?:[\w-]+ ){{0,3}}{_MONEY}\b",
    rf"\b(?:not enough|no (?:more|remaining|available)|out of) (?:[\w-]+ ){{0,2}}{_MONEY}\b",
    r"used (?:up )?all (?:of )?(?:your |the )?(?:available |free )?credits|used up your [\w -]{0,40}allocation",
    r"exceeded your current quota|exceeded (?:your|the|its) (?:[\w-]+ ){0,3}included credits",
    rf"\bexceed(?:s|ed)? (?:your|the|its) (?:[\w-]+ ){{0,2}}{_LIMIT} (?:limit|cap|quota)\b",
    rf"\breached (?:your|the|its) (?:[\w-]+ ){{0,2}}{_LIMIT} (?:limits?|caps?)\b",
    r"\bkey limit exceeded",
    r"\bonly (?:accessible|available) (?:to|for) (?:billed|paid|paying) (?:users|customers|accounts)\b",
    r"\b(?:spend(?:ing)?|credit|billing|budget) (?:limit|cap) (?:has been |was |is )?(?:exceeded|reached|hit)\b",
    r"\bbilling hard limit|\bbudget has been exceeded",
    r"\bbilling (?:is |has |to )?(?:(?:not|be|been) )*(?:enabled|disabled)\b|\benable billing\b",
    r"\btrial (?:period )?(?:has |is )?(?:ended|expired|over)\b|\bupgrade your plan to continue\b",
    r"\barrear(?:s|age)\b",
    r"\b(?:account|bill|invoice|balance|payment|charges?|fees?)\b[\w ,']{0,30}\b(?:overdue|past due)\b",
    r"\boverdue (?:account|bill|invoice|balance|payment|charges?|fees?)\b",
    r"\bunpaid (?:bill|invoice|balance|charges?)\b",
    r"\bpayment (?:is )?required\b|\bpayment method (?:was |is |has been )?(?:required|declined|expired)\b",
    r"\b(?:please|must|need to|required to) (?:first )?(?:top[ -]?up|recharge)",
    r"\b(?:please|must|need to|required to) (?:first )?(?:add|buy|purchase) (?:more )?(?:credits?|funds)",
    r"\b(?:top(?:ping)?[ -]?up|recharge) (?:your|the) (?:[\w-]+ ){0,2}(?:account|balance|credits?|wallet)\b",
    r"\baccount is (?:not )?in good standing\b",
    r"\baccount (?:is |was |has been )?(?:suspended|locked|disabled|frozen)[\w ,]{0,40}(?:billing|balance|payment)",
)
_OTHERS = (
    # Chinese
    r"余额(?:已)?(?:不足|不够|为零|为0|耗尽|用尽)|餘額(?:已)?(?:不足|不夠|耗盡)|欠费|欠費|账户余额|賬戶餘額|帳戶餘額|账号余额|余额.{0,6}请充值",
    r"(?<!并发)(?<!速率)(?<!请求)(?:额度|額度|点数|點數|积分|積分|资源包|資源包)(?:已)?(?:不足|不够|不夠|用尽|用完|用盡|耗尽|耗盡)",
    r"预扣费(?:额度)?失败",
    r"请(?:先|及时|尽快)?(?:前往)?(?:充值|续费|缴费)|請(?:先)?(?:充值|儲值|儲值|加值|續費)|已欠款|逾期未(?:付|缴)",
    # Japanese, Korean
    r"残高(?:が|は)?(?:不足|足り|ありません|なくなり|ゼロ)|クレジット(?:が|は|の残高が)?(?:不足|足り|ありません|なくなり)",
    r"チャージしてください|お?支払い(?:が必要|期限)|料金(?:が|の)?(?:未払|滞納)|未払い",
    r"잔액(?:이)? ?(?:부족|없)|크레딧(?:이)? ?(?:부족|모두|없)|충전(?:해| 후|이 필요)",
    r"요금(?:이)? ?(?:미납|연체)|결제가? ?필요",
    # Russian, Ukrainian
    r"недостаточно (?:\w+ ){0,2}(?:средств|кредитов|денег|баланса|токенов на балансе)",
    r"не хватает (?:средств|денег|баланса)",
    r"баланс(?:е|а)?\b[^.!]{0,30}\b(?:исчерпан|недостат|пуст|нулев|отрицат|равен (?:0|нулю)|закончил)|нулевой баланс",
    r"пополните (?:\w+ )?(?:баланс|сч[её]т)|(?:средства|деньги|кредиты) (?:\w+ ){0,2}(?:закончились|исчерпаны)",
    r"имеется задолженность|задолженность по|требуется оплата|недостатньо (?:коштів|кредитів)|поповніть",
    # Spanish, Portuguese, French, Italian
    r"(?:saldo|cr[ée]ditos?|fondos|fundos) (?:\w+ ){0,3}(?:insuficientes?|agotad[oa]s?|esgotad[oa]s?)",
    r"\bsin saldo\b|\bsem saldo\b",
    r"(?:saldo|cr[ée]ditos?|fondos) suficientes?",
    r"recarg(?:ue|a|ar) (?:su |tu |seu |sua )?(?:saldo|cuenta|conta|cr[ée]ditos?)",
    r"pago (?:requerido|pendiente|vencido)|(?:factura|pago)s? (?:vencid|impagad)",
    r"pagamento (?:necess[áa]rio|pendente|richiesto)",
    r"(?:solde|cr[ée]dits?|fonds) (?:\w+ ){0,2}(?:insuffisants?|[ée]puis[ée]s?)|paiement requis",
    r"rechargez|factures? impay[ée]e",
    r"(?:credito|saldo|fondi) (?:\w+ ){0,2}(?:insufficiente|insufficienti|esaurito|esauriti)",
    # German, Dutch, Polish, Turkish
    r"guthaben\b[^.!]{0,40}\b(?:aufgebraucht|ersch[öo]pft|reicht nicht|nicht aus(?:reichend)?|leer|aufladen)",
    r"guthaben\b[^.!]{0,40}\bzu (?:gering|niedrig)",
    r"(?:nicht gen[üu]gend|nicht genug|unzureichende[sn]?|kein|zu wenig) (?:guthaben|credits?)",
    r"laden sie ihr guthaben",
    r"zahlung (?:ist )?(?:erforderlich|[üu]berf[äa]llig)|zahlungsr[üu]ckstand",
    r"rechnung (?:ist )?(?:[üu]berf[äa]llig|unbezahlt)",
    r"onvoldoende (?:saldo|tegoed|krediet)|niewystarczaj[ąa]c\w+ (?:[śs]rodki|saldo)",
    r"brak [śs]rodk[óo]w|yetersiz (?:bakiye|kredi)",
)
_NO_MONEY = (*_ENGLISH, *_OTHERS)

_REFUSED = (
    r"(?:blocked|flagged|rejected|refused|denied|filtered|prohibited|disallowed|violat\w+|not allowed|triggered|failed)"
)
_POLICY = (
    r"(?:safety|moderation"
    r"|content[ _-](?:polic(?:y|ies)|filter\w*|moderation|management|checker|guidelines|restrictions?)"
    r"|usage (?:polic(?:y|ies)|guidelines)|community guidelines|responsible ai|acceptable use|nsfw"
    r"|sensitive (?:words|content))"
)
_MODERATED = (
    rf"\b{_REFUSED}\b.{{0,80}}?\b{_POLICY}",
    rf"\b{_POLICY}.{{0,60}}?\b{_REFUSED}\b",
    r"\b(?:input|prompt|request|output|image|content) (?:was|were|has been|is) flagged\b",
    r"\bresult of our safety system|\bviolat\w+ (?:our|the) terms|\bforbidden (?:words?|content)\b",
    r"\bcopyrighted (?:material|content|characters?)\b",
    r"\b(?:nsfw|sensitive|inappropriate|harmful|unsafe|prohibited|explicit) (?:content|words|material|image)",
    r"content_?policy_?violation|prohibited_content|\bnsfw\b|responsibleaipolicy|\bnew_sensitive\b",
    r"blocked by (?:our|the|google.s) (?:safety|content)",
    r"敏感(?:内容|词|詞|信息|內容)|不安全(?:或敏感)?(?:的)?(?:内容|內容)|违规|違規|审核(?:未|不)通过|內容審核|内容审核|内容安全|不合规",
    r"модераци|запрещ[её]нн\w+ (?:контент|содержани)|нарушает (?:правила|политику)",
    r"コンテンツ ?ポリシー|セーフティ|不適切な(?:内容|コンテンツ)|안전 ?정책|부적절한",
    r"pol[íi]tica de contenido|contenido (?:inapropiado|prohibido)|inhaltsrichtlinie|unangemessene inhalte",
)
_OF_THE_ACCOUNT = re.compile(
    r"\b(?:resource|account|organi[sz]ation|project|team|api key|subscription|access)\b.{0,40}"
    r"\b(?:blocked|suspended|disabled|flagged|banned|restricted|deactivated|terminated|violat\w+)\b",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|«[^»]*»|「[^」]*」|`[^`]*`|(?<!\w)'[^']*'(?!\w)|‘[^’]*’")
_AFTER_A_NAME = re.compile(
    r"[\"']?(?:message|msg|error|errors|detail|reason|code|type|title|errorMessage|error_msg|status_msg)[\"']?\s*[:=]\s*$"
)
_PROMPT = re.compile(
    r"\b(?:prompt|input|text|подсказка|提示词|プロンプト)[\"']?\s*[:=：](?! *\{).*", re.IGNORECASE | re.DOTALL
)


def says_no_money(message: str) -> bool:
    """Return whether a message says that the account has no money left, in one of the languages of the servers."""
    return _any_of(_NO_MONEY).search(own_words(message)) is not None


def own_words(message: str) -> str:
    """Return a message without what it quotes, and without what follows "prompt:"."""
    return _PROMPT.sub(" ", without_quotes(message))


def says_moderated(message: str) -> bool:
    """Return whether a message says that the content policy refused the request, rather than the account."""
    text = without_quotes(message)
    return _any_of(_MODERATED).search(text) is not None and not _OF_THE_ACCOUNT.search(text)


@functools.cache  # compiled at the first error: it takes 8 ms, which a run without errors saves
def _any_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


def without_quotes(message: str) -> str:
    """Return a message without what it quotes, which may be a prompt; values of a JSON error within it stay."""
    text = message.replace('\\"', '"')
    parts, at = [], 0
    for found in _QUOTED.finditer(text):
        before = text[max(0, found.start() - 40) : found.start()]
        is_value = _AFTER_A_NAME.search(before) or re.match(r"\s*:", text[found.end() :])
        parts += [text[at : found.start()], found[0] if is_value else " "]
        at = found.end()
    return "".join(parts) + text[at:]
