"""config.yaml and the environment become a Config, and every mistake is named with its line."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.config.batch_rules import SANDBOX_BATCH_RULES, BatchRules
from pipeline.config.dialect import KEYS as DIALECT_KEYS
from pipeline.config.dialect import Uploads
from pipeline.config.environment import BASIC_VARIABLES, PYTHON_VARIABLES, EnvironmentVariable, child_environment
from pipeline.config.load import Config, Provider, RateLimit, load
from pipeline.config.validation import Section
from pipeline.config.yaml_document import parse
from pipeline.errors import BadInput, ConfigError
from tests.unit.test_yaml_document import NESTED

ROOT = Path(__file__).parents[2]


def read(folder: Path, text: str) -> Config:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, environment={})


def provider(folder: Path, lines: str) -> Provider:
    return read(folder, f"providers:\n  lab: {lines}\n").find_provider("lab")


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    return str(caught.value).replace(f"{folder}/", "")


def test_without_a_file_there_are_sandbox_and_openai_and_no_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load(environment={})
    assert sorted(config.providers) == ["openai", "sandbox"]
    assert config.provider is None
    assert config.output == tmp_path / "outputs"
    openai = config.find_provider("openai")
    assert (openai.base_url, openai.api_key_env) == ("https://api.openai.com/v1", "OPENAI_API_KEY")
    assert openai.rate_limit == RateLimit(50, 60.0)
    assert config.find_provider("sandbox").sandbox == {}


def test_the_option_wins_over_the_variable_and_the_variable_over_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("config", "variable", "option"):
        (tmp_path / f"{name}.yaml").write_text(f"output: {name}")
    environment = {"PIPELINE_CONFIG": "variable.yaml"}
    assert load(environment={}).output == tmp_path / "config"
    assert load(environment={"PIPELINE_CONFIG": ""}).output == tmp_path / "config"
    assert load(environment=environment).output == tmp_path / "variable"
    assert load(Path("option.yaml"), environment=environment).output == tmp_path / "option"


def test_output_is_relative_to_the_file_and_the_option_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "there"
    folder.mkdir()
    assert read(folder, "output: pictures").output == folder / "pictures"
    assert load(folder / "config.yaml", output=Path("x"), environment={}).output == tmp_path / "x"


def test_a_named_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.yaml: cannot be read"):
        load(tmp_path / "no.yaml", environment={})


def test_every_key_is_read(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        """
provider: lab
budget_usd: 2
retry: {attempts: 3, max_wait_seconds: 5, outage_hours: 0.5}
download: {attempts: 2, max_bytes: 1000, max_pixels: 500, allow_hosts: [Localhost]}
models: {mine: {inherits: dall-e-2}}
shared: true
providers:
  lab:
    base_url: http://127.0.0.1:8080/v1/
    api_key_env: LAB_KEY
    rate_limit: {images: 5, per_seconds: 10, margin: 1.1}
    concurrency: 4
    images_per_call: 2
    timeout_seconds: 30
    url_ttl_seconds: 60
    headers: {X-Team: art, X-Secret: {env: LAB_SECRET}}
""",
    )
    lab = config.find_provider("lab")
    assert (config.provider, config.budget_usd, config.models) == ("lab", 2.0, {"mine": {"inherits": "dall-e-2"}})
    assert (config.retry.attempts, config.retry.max_wait_seconds, config.retry.outage_hours) == (3, 5.0, 0.5)
    assert (config.download.attempts, config.download.max_bytes, config.download.max_pixels) == (2, 1000, 500)
    assert config.download.allow_hosts == {"localhost"}
    assert config.shared
    assert lab == Provider(
        name="lab",
        base_url="http://127.0.0.1:8080/v1",
        api_key_env="LAB_KEY",
        rate_limit=RateLimit(5, 10.0, 1.1),
        concurrency=4,
        images_per_call=2,
        timeout_seconds=30.0,
        url_ttl_seconds=60.0,
        headers={"X-Team": "art", "X-Secret": EnvironmentVariable("LAB_SECRET")},
    )
    assert lab.rate_limit is not None
    assert lab.rate_limit.window == pytest.approx(11.0)


def test_what_is_left_out_is_as_the_readme_says(tmp_path: Path) -> None:
    plain = provider(tmp_path, "{base_url: 'https://x.example/v1'}")
    assert (plain.rate_limit, plain.concurrency, plain.images_per_call) == (RateLimit(50, 60.0), 1024, 10)
    assert (plain.timeout_seconds, plain.url_ttl_seconds) == (600.0, 3600.0)
    free = provider(tmp_path, "{base_url: 'https://x.example/v1', rate_limit: null}")
    assert (free.rate_limit, free.concurrency) == (None, 32)


def test_the_projects_own_config_is_read() -> None:
    config = load(ROOT / "config.yaml", environment={})
    assert config.provider == "sandbox"
    assert config.output == ROOT / "outputs"


def test_a_sandbox_takes_true_or_its_settings_and_has_a_key_of_its_own(tmp_path: Path) -> None:
    assert provider(tmp_path, "{sandbox: true}").sandbox == {}
    assert provider(tmp_path, "{sandbox: {seed: 7}}").sandbox == {"seed": 7}
    assert provider(tmp_path, "{sandbox: true}").key({}) == "sandbox"


def test_unknown_keys_are_named_with_line_and_nearest_spelling(tmp_path: Path) -> None:
    text = (
        "provder: x\nproviders:\n  lab:\n    base_url: http://x/v1\n    rate_limits: 3\nretry: {atempts: 1}\nzebra: 1\n"
    )
    known = (
        "budget_usd, download, images, images_options, images_url, models, notify, output, provider, providers, retry,"
        " routes, shared, spool_bytes, workers"
    )
    assert refusal(tmp_path, text).splitlines() == [
        "config.yaml, line 1, provder: unknown key `provder`; did you mean `provider`?",
        f"config.yaml, line 7, zebra: unknown key `zebra`; known are {known}",
        "config.yaml, line 5, providers.lab.rate_limits: unknown key `rate_limits`; did you mean `rate_limit`?",
        "config.yaml, line 6, retry.atempts: unknown key `atempts`; did you mean `attempts`?",
    ]


def test_the_entries_that_wait_in_config_yaml_are_right_once_their_marks_are_taken_away(tmp_path: Path) -> None:
    text = (ROOT / "config.yaml").read_text()
    entries = re.findall(r"^  # ([\w-]+):", text, re.MULTILINE)
    assert entries == ["azure", "xai", "together", "localai", "vllm-omni", "sglang", "litellm", "lab"]
    config = read(tmp_path, re.sub(r"^  # (?=[\w-]+:|  )", "  ", text, flags=re.MULTILINE))
    assert set(entries) < set(config.providers)
    azure = config.find_provider("azure").dialect
    assert (azure.auth_header, azure.auth_scheme, sorted(azure.leave_out)) == ("api-key", None, ["model"])
    assert azure.query == {"api-version": "2025-04-01-preview"}
    xai, together = config.find_provider("xai").dialect, config.find_provider("together").dialect
    assert (xai.uploads, xai.size_as) == (Uploads("json", "image", "images", "mask", "url"), "aspect_ratio")
    assert together.uploads == Uploads("json", "image_url", "reference_images", "mask", "data_url")
    assert config.find_provider("vllm-omni").dialect.uploads == Uploads(mask="mask_image")
    assert config.find_provider("localai").dialect.uploads.image is None
    assert config.find_provider("litellm").dialect.uploads.images == "image"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "must be a mapping"),
        ("provider: a\nprovider: b", "line 2, provider: `provider` is given twice"),
        ("provider: sandbx", "line 1, provider: there is no provider `sandbx`; did you mean `sandbox`?"),
        ("output: 5", "line 1, output: must be text, not 5"),
        ('output: "a\\0b"', "line 1, output: must be text"),
        ("budget_usd: -1", "line 1, budget_usd: must be a number of at least 0, not -1"),
        (f"budget_usd: {'9' * 400}", "line 1, budget_usd: must be a number"),
        ("retry: 5", "line 1, retry: must be a mapping"),
        ("retry: {attempts: 0}", "retry.attempts: must be a whole number of at least 1, not 0"),
        ("retry: {attempts: true}", "retry.attempts: must be a whole number"),
        ("retry: {attempts: 1.5}", "retry.attempts: must be a whole number"),
        ("download: {allow_hosts: a}", "download.allow_hosts: must be a list of names"),
        ("providers: {lab: null}", "providers.lab: needs `base_url"),
        ("providers: {lab: 5}", "providers.lab: must be a mapping"),
        ("providers: {.lab: {sandbox: true}}", "`.lab` is not a valid name"),
        ("providers: {lab: {sandbox: 1}}", "providers.lab.sandbox: must be true or a mapping"),
        ("providers: {lab: {sandbox: true, base_url: 'http://x'}}", "a sandbox has its own URL"),
        ("providers: {lab: {base_url: x.example}}", "`x.example` is not a URL"),
        (
            "providers: {lab: {base_url: 'https://x.example/v1/images/generations'}}",
            "is the address of one operation: write it without `/images/generations`",
        ),
        (
            "providers: {lab: {base_url: 'https://x.example/v1/chat/completions/'}}",
            "is the address of one operation: write it without `/chat/completions/`",
        ),
        (
            "providers: {lab: {base_url: 'https://x.example/v1', rate_limit: 50}}",
            "rate_limit: must be a mapping of keys to values: write `rate_limit: {images: 50, per_seconds: 60}`",
        ),
        ("providers: {lab: {base_url: 'ftp://x'}}", "is not a URL"),
        ("providers: {lab: {base_url: 'http://x:99999/'}}", "is not a URL"),
        ("providers: {lab: {base_url: 'http://a b/v1'}}", "is not a URL"),
        ("providers: {lab: {base_url: 'http://key@x/v1'}}", "a key does not belong in a URL"),
        ("providers: {lab: {base_url: 'http://x/v1?a=b'}}", "write the query under `query:`"),
        ("providers: {lab: {base_url: 'http://x', rate_limit: {images: 0}}}", "rate_limit.images: must be"),
        ("providers: {lab: {base_url: 'http://x', rate_limit: {margin: 0.9}}}", "rate_limit.margin: must be"),
        ("providers: {lab: {base_url: 'http://x', headers: {A B: c}}}", "is not a valid name of an HTTP header"),
        ("providers: {lab: {base_url: 'http://x', headers: {X: 1}}}", "headers.X: must be one line of ASCII text"),
        (
            "providers: {lab: {base_url: 'http://x', headers: {X: {env: a b}}}}",
            "headers.X: must be one line of ASCII text",
        ),
        (
            'providers: {lab: {base_url: "http://x", headers: {X: "a\\nb"}}}',
            "headers.X: must be one line of ASCII text",
        ),
        *(
            (f"providers: {{lab: {{base_url: 'http://x', {options}}}}}", words)
            for options, words in [
                ("auth: {headr: a}", "auth.headr: unknown key `headr`; did you mean `header`?"),
                ("auth: {header: 'a b'}", "auth.header: `a b` is not a valid name of an HTTP header"),
                ("auth: {scheme: 'a b'}", "auth.scheme: must be a word like Bearer, or null"),
                ("query: {api-key: sk-1}", "query.api-key: a key does not belong in a URL"),
                ("query: {v: [1]}", "query.v: must be text"),
                ("body: {n: 2}", "body.n: cannot be the same for all calls"),
                ("leave_out: model", "leave_out: must be a list of names"),
                ("leave_out: [prompt]", "leave_out: `prompt` cannot be left out"),
                ("leave_out: [model, model]", "leave_out: names `model` twice"),
                ("leave_out: [n]", "leave_out: without `n` a call makes one image: write `images_per_call: 1`"),
                ("values: {response_format: 5}", "values.response_format: must be a mapping"),
                ("size_as: w*h", "size_as: `w*h` is not known; did you mean `W*H`?"),
                ("paths: {edits: a}", "paths.edits: unknown key `edits`; did you mean `edit`?"),
                ("paths: {edit: '../a?b'}", "paths.edit: `../a?b` is not a path below base_url"),
                ("uploads: {encoding: xml}", "uploads.encoding: `xml` is not known; write one of multipart, json"),
                ("uploads: {reference: url}", "uploads.reference: is for `encoding: json`"),
                ("picture_hosts: a", "picture_hosts: must be a list of names"),
            ]
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    said = refusal(tmp_path, text)
    assert words in said
    assert said.startswith("config.yaml, line ")


def test_a_key_is_never_written_in_the_file_and_never_repeated(tmp_path: Path) -> None:
    text = """
providers:
  a: {base_url: "http://x/v1", api_key_env: sk-proj-123456}
  b: {base_url: "http://x/v1", headers: {Authorization: Bearer sk-proj-123456}}
"""
    said = refusal(tmp_path, text)
    assert said.count("keys are never written in files") == 2
    assert "sk-proj" not in said


def test_a_key_comes_from_its_variable_and_an_unset_or_empty_one_is_refused(tmp_path: Path) -> None:
    lab = provider(tmp_path, "{base_url: 'http://x/v1', api_key_env: LAB_KEY, headers: {X-Two: {env: TWO}}}")
    assert lab.key({"LAB_KEY": " k1\n"}) == "k1"
    assert lab.header_values({"TWO": "2"}) == {"X-Two": "2"}
    for environment in ({}, {"LAB_KEY": "  "}):
        with pytest.raises(ConfigError, match=r"\$LAB_KEY, which is unset or empty"):
            lab.key(environment)
    with pytest.raises(ConfigError, match="characters that are not allowed in an HTTP header") as caught:
        lab.key({"LAB_KEY": "sk-\x00secret"})
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"\$TWO"):
        lab.header_values({})


HIDDEN = "0a1b2c3d4e"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (f'"sk-{HIDDEN}"', "quotation marks"),
        (f"'sk-{HIDDEN}'", "quotation marks"),
        (f"`sk-{HIDDEN}`", "quotation marks"),
        (f"\u201csk-{HIDDEN}\u201d", "quotation marks"),
        (f"\u2018sk-{HIDDEN}\u2019", "quotation marks"),
        (f"\u201esk-{HIDDEN}\u201c", "quotation marks"),
        (f"\u00absk-{HIDDEN}\u00bb", "quotation marks"),
        (f'sk-{HIDDEN}"\n', "quotation mark, and the other one is missing"),
        (f'" sk-{HIDDEN} "', "quotation marks"),
        (f"LAB_KEY=sk-{HIDDEN}", "name of a variable"),
        (f"export LAB_KEY=sk-{HIDDEN}", "name of a variable"),
        (f"OPENAI_API_KEY=sk-{HIDDEN}", "name of a variable"),
        (f"sk-{HIDDEN}\nsk-{HIDDEN}", "line break"),
        (f"sk-{HIDDEN}\r\n{HIDDEN}", "line break"),
        ("$LAB_SECRET", "name of another variable"),
        ("${OPENAI_API_KEY}", "name of another variable"),
        (f"sk-{HIDDEN}\u00a0{HIDDEN}", r"U\+00A0 NO-BREAK SPACE"),
        (f"sk-{HIDDEN}\u2013{HIDDEN}", r"U\+2013 EN DASH"),
    ],
)
def test_a_value_with_more_than_the_value_is_refused_without_repeating_it(
    tmp_path: Path, value: str, words: str
) -> None:
    lab = provider(tmp_path, "{base_url: 'http://x/v1', api_key_env: LAB_KEY, headers: {X-Two: {env: LAB_KEY}}}")
    for read_it in (lab.key, lab.header_values):
        with pytest.raises(ConfigError, match=rf"\$LAB_KEY, which .*{words}") as caught:
            read_it({"LAB_KEY": value})
        assert HIDDEN not in str(caught.value)
        assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (f"Bearer sk-{HIDDEN}", "begins with `Bearer `"),
        (f"bearer  sk-{HIDDEN}", "begins with `Bearer `"),
        (f"Token {HIDDEN}", "begins with `Token `"),
        (f"Authorization: Bearer sk-{HIDDEN}", "begins with the name of a header"),
        (f"sk-{HIDDEN} {HIDDEN}", "holds a space within it"),
        (f"sk-{HIDDEN}\t{HIDDEN}", "holds characters that are not allowed in an HTTP header"),
    ],
)
def test_a_key_is_one_word_without_what_is_added_to_it(tmp_path: Path, value: str, words: str) -> None:
    lab = provider(tmp_path, "{base_url: 'http://x/v1', api_key_env: LAB_KEY}")
    with pytest.raises(ConfigError, match=rf"\$LAB_KEY, which {words}") as caught:
        lab.key({"LAB_KEY": value})
    assert HIDDEN not in str(caught.value)


def test_a_key_that_brings_its_own_word_is_sent_as_it_is(tmp_path: Path) -> None:
    auth = "auth: {header: Authorization, scheme: null}"
    lab = provider(tmp_path, f"{{base_url: 'http://x/v1', api_key_env: LAB_KEY, {auth}}}")
    assert lab.key({"LAB_KEY": f"Basic {HIDDEN}\n"}) == f"Basic {HIDDEN}"


def test_a_header_may_hold_words_and_equals_signs(tmp_path: Path) -> None:
    lab = provider(tmp_path, "{base_url: 'http://x/v1', headers: {X-Two: {env: TWO}}}")
    for value in ("Bearer abc", "team=art; night", 'a "quoted" word inside'):
        assert lab.header_values({"TWO": value}) == {"X-Two": value}


def test_a_provider_without_a_key_needs_none(tmp_path: Path) -> None:
    assert provider(tmp_path, "{base_url: 'http://x/v1'}").key({}) is None


def test_an_unknown_provider_is_answered_with_the_nearest(tmp_path: Path) -> None:
    config = read(tmp_path, "providers: {lab: {sandbox: true}}")
    with pytest.raises(ConfigError, match=r"has no provider `labs`; did you mean `lab`\?"):
        config.find_provider("labs")
    with pytest.raises(ConfigError, match="known are lab"):
        config.find_provider("zebra")


def test_a_section_gives_defaults_for_what_is_missing_or_null() -> None:
    section = Section(parse("a: null", "a.yaml", ConfigError), (), [])
    assert (section.text("a", "x"), section.integer("b", 3, least=1), section.number("c", None, least=0)) == (
        "x",
        3,
        None,
    )
    assert not section.problems


def test_a_thousand_mistakes_are_not_all_told(tmp_path: Path) -> None:
    said = refusal(tmp_path, "".join(f"zebra{i}: 1\n" for i in range(50_000)) + "budget_usd: x\n").splitlines()
    assert len(said) == 102
    assert said[100].endswith("has 49,900 more unknown keys")
    assert "budget_usd" in said[101], "another mistake is not hidden"


_TOP = ("output", "provider", "providers", "budget_usd", "retry", "download", "models", "lab", "notify")
_BELOW = (
    "sandbox",
    "base_url",
    "headers",
    "rate_limit",
    "images",
    "attempts",
    "allow_hosts",
    "env",
    "api_key_env",
    "webhook",
    "command",
    "on",
)
KEYS = st.sampled_from([*_TOP, *_BELOW, *DIALECT_KEYS, "concurrency", "encoding", "edit", "header"])
CONFIG = st.recursive(
    NESTED, lambda inner: st.dictionaries(KEYS, inner, max_size=5) | st.lists(inner, max_size=3), max_leaves=15
)


def _read_or_refused(folder: Path, text: str) -> None:
    path = folder / "fuzz.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(BadInput):
        assert load(path, environment={}).providers


@settings(deadline=None, derandomize=True, max_examples=60)
@given(CONFIG)
@example({"providers": {"lab": {"base_url": "http://[", "rate_limit": {"images": 10**400}}}})
def test_any_values_as_a_config_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, values: object) -> None:
    _read_or_refused(tmp_path_factory.getbasetemp(), yaml.safe_dump(values, allow_unicode=True))


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.text(max_size=200))
def test_any_text_as_a_config_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    _read_or_refused(tmp_path_factory.getbasetemp(), text)


@pytest.mark.parametrize(
    ("images", "per_seconds", "per_minute"), [(50, 60.0, 50.0), (5, 1.0, 300.0), (100, 600.0, 10.0)]
)
def test_a_rate_limit_is_also_a_number_of_images_per_minute(images: int, per_seconds: float, per_minute: float) -> None:
    assert RateLimit(images, per_seconds, margin=2.0).per_minute == per_minute


@pytest.mark.parametrize("secret", ["api_key_env: LAB_KEY", "headers: {X-Token: {env: LAB_TOKEN}}"])
def test_a_key_is_not_sent_over_the_open_net_without_encryption(tmp_path: Path, secret: str) -> None:
    said = refusal(tmp_path, f"providers:\n  lab:\n    base_url: http://api.example:80/v1\n    {secret}\n")
    assert said == (
        "config.yaml, line 3, providers.lab.base_url: would send the key to api.example without encryption; "
        "write https://, or `insecure: true` beside it if that is meant"
    )
    meant = provider(tmp_path, f"{{base_url: 'http://api.example/v1', insecure: true, {secret}}}")
    assert meant.exposed_host is None


@pytest.mark.parametrize(
    ("lines", "exposed"),
    [
        ("base_url: 'http://gpu.lan/v1', api_key_env: K", "gpu.lan"),
        ("base_url: 'http://10.0.0.7:80/v1', api_key_env: K", "10.0.0.7"),
        ("base_url: 'http://[fd00::7]/v1', headers: {X-A: {env: K}}", "fd00::7"),
        ("base_url: 'http://gpu.lan/v1', api_key_env: K, insecure: true", None),
        ("base_url: 'http://gpu.lan/v1'", None),
        ("base_url: 'http://api.example/v1', headers: {X-A: b}", None),
        ("base_url: 'http://127.0.0.1:80/v1', api_key_env: K", None),
        ("base_url: 'http://localhost/v1', api_key_env: K", None),
        ("base_url: 'https://api.example/v1', api_key_env: K", None),
        ("sandbox: true", None),
    ],
)
def test_a_key_in_a_private_network_is_exposed_where_nothing_encrypts_it(
    tmp_path: Path, lines: str, exposed: str | None
) -> None:
    assert provider(tmp_path, f"{{{lines}}}").exposed_host == exposed


def test_an_option_that_is_true_or_false_takes_nothing_else(tmp_path: Path) -> None:
    said = refusal(tmp_path, "providers: {lab: {base_url: 'https://x.example', insecure: 'yes'}}")
    assert "insecure: must be true or false, not 'yes'" in said


def test_a_child_process_gets_what_it_needs_and_no_secret() -> None:
    needed = {"PATH": "/bin", "HOME": "/h", "LC_ALL": "C", "Path": "C:", "DBUS_SESSION_BUS_ADDRESS": "d"}
    others = {"OPENAI_API_KEY": "k", "AWS_SECRET": "k", "HTTPS_PROXY": "p", "LC_KEY": "k", "PYTHONPATH": "p"}
    assert child_environment({**needed, **others}) == needed
    assert "PYTHONPATH" in child_environment(others, BASIC_VARIABLES | PYTHON_VARIABLES)
    assert child_environment({**needed, "USER": "sk-1"}, secret=["USER"]) == needed


def test_the_config_of_the_nearest_folder_above_is_found_and_home_ends_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / "home" / "work" / "jobs"
    deep.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PIPELINE_CONFIG", raising=False)
    monkeypatch.chdir(deep)
    (tmp_path / "config.yaml").write_text("output: too-high\n")
    assert load().file is None, "above the home folder nothing is looked for"
    (tmp_path / "home" / "config.yaml").write_text("output: far\n")
    assert load().output == tmp_path / "home" / "far"
    (tmp_path / "home" / "work" / "config.yaml").write_text("output: near\n")
    assert (load().file, load().output) == (deep.parent / "config.yaml", deep.parent / "near")
    (deep / "config.yaml").write_text("output: here\n")
    assert (load().file, load().output) == (Path("config.yaml"), deep / "here")
    monkeypatch.chdir(tmp_path / "home")
    assert load().output == tmp_path / "home" / "far"


def test_the_batch_api_is_on_where_it_is_known_and_else_on_request(tmp_path: Path) -> None:
    assert provider(tmp_path, "{base_url: 'https://api.openai.com/v1/'}").batch == BatchRules()
    assert provider(tmp_path, "{sandbox: true}").batch == SANDBOX_BATCH_RULES
    assert provider(tmp_path, "{base_url: 'http://api.openai.com/v1'}").batch is None
    assert provider(tmp_path, "{base_url: 'https://x.org/v1'}").batch is None
    assert provider(tmp_path, "{base_url: 'https://x.org/v1', batch: {}}").batch == BatchRules()
    changed = provider(tmp_path, "{sandbox: true, batch: {enqueued_tokens: null, poll_seconds: [0.1, 0.5]}}").batch
    assert changed == BatchRules(enqueued_tokens=None, poll_seconds=(0.1, 0.5))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("discount: 1.5", "a share of the price"),
        ("poll_seconds: 60", "two numbers"),
        ("poll_seconds: [0, 1]", "at least 0.001"),
        ("poll_seconds: [2, 1]", "must not be longer"),
        ("most_images: 0", "at least 1"),
        ("enqueued_tokens: many", "whole number"),
        ("window: 24h", "unknown key"),
    ],
)
def test_a_mistake_in_the_bounds_of_batches_is_named(tmp_path: Path, rules: str, message: str) -> None:
    refused = refusal(tmp_path, f"providers:\n  lab:\n    sandbox: true\n    batch: {{{rules}}}\n")
    assert refused.startswith("config.yaml, line 4, ")
    assert message in refused


def test_images_go_to_a_folder_beside_the_config_or_to_the_url_of_a_store(tmp_path: Path) -> None:
    def read(text: str) -> Config:
        (tmp_path / "config.yaml").write_text(text)
        return load(tmp_path / "config.yaml")

    assert read("{}").images_folder == tmp_path / "outputs"
    assert read("images: pictures").images_folder == tmp_path / "pictures"
    assert read("images: file:///srv/my%20pictures").images == Path("/srv/my pictures")
    store = read("images: s3://bucket/nights/\nimages_url: https://cdn.example/\nimages_options: {anon: true}\n")
    assert (store.images, store.images_url) == ("s3://bucket/nights", "https://cdn.example")
    assert (store.images_folder, store.spool_bytes) == (tmp_path / "outputs", 2_000_000_000)
    assert store.images_options == {"anon": True}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("images: s3://", "must be a folder, or a URL like"),
        ("images: s3:/bucket/nights", "must be a folder, or a URL like"),
        ("images: file://nights", "or file:///data/nights, not 'file://nights'"),
        ("images: memory://nights", "would lose every image"),
        ("images: s3://key:secret@bucket", "without a key"),
        ("images_url: cdn.example", "must be a URL like"),
        ("images: s3://bucket\nimages_options: {secret: x}", "is never written in files"),
        ("images: s3://bucket\nimages_options: {client_secret: x}", "is never written in files"),
        ("images: pictures\nimages_options: {anon: true}", "only if `images` is the URL of an object store"),
        ("spool_bytes: 5", "only if `images` is the URL of an object store"),
        ("images: s3://bucket\nspool_bytes: 0", "must be"),
    ],
)
def test_what_is_wrong_about_the_places_of_images_is_named(tmp_path: Path, text: str, problem: str) -> None:
    assert problem in refusal(tmp_path, text)
