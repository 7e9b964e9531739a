"""Draws a view on a terminal with rich: a bar for each job, a line for each provider, and the total."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

from pipeline.printable import printable, printable_lines
from pipeline.progress.view import SEPARATOR, bottleneck_of, end_facts, job_cells, job_facts, provider_facts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from pipeline.progress.view import JobView, ProviderView, View

DONE, FAILED, LEFT = "━", "×", "─"  # noqa: RUF001 - a bar is read by its shapes; colour says the same
_LEAST_BAR, _MOST_BAR = 10, 60  # columns
_LONGEST_NAME = 30
_MOST_JOBS = 12
_PLAIN = Console(color_system=None)  # for wrapping at words
_WIDE = 100  # columns, from which on every job shows its cost and its end


class Screen:
    """The last lines of a terminal, redrawn in place; they are erased when it is closed."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream)
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,  # events go where stdout goes
            redirect_stderr=False,
            vertical_overflow="crop",
        )

    def show(self, view: View) -> None:
        """Draw a view in place of the last one."""
        drawn = draw(view, self._console.width, self._console.height)
        if self._live.is_started:
            self._live.update(drawn, refresh=True)
        else:
            self._live.update(drawn)
            self._live.start(refresh=True)

    def say(self, lines: str) -> None:
        """Print lines above what is drawn."""
        self._console.print(printable_lines(lines), highlight=False, markup=False)

    def close(self) -> None:
        """Erase what is drawn and restore the cursor."""
        self._live.stop()


def draw(view: View, width: int, height: int) -> Text:
    """Return the drawing of a view for so many columns and rows."""
    shown, others = _chosen(view, height)
    lines = [line for note in view.notes for line in Text(note).wrap(_PLAIN, width)]
    job_lines, has_ends = _job_lines(shown, view.now, width)
    lines += job_lines
    if others:
        lines += _wrapped(_others(others), width)
    for provider in view.providers:
        lines += _provider_lines(provider, view, width)
    lines += _wrapped(_sum(view, alone=len(view.jobs) == 1 and has_ends), width)
    return Text("\n", no_wrap=True, overflow="ellipsis", end="").join(lines)


def _chosen(view: View, height: int) -> tuple[Sequence[JobView], Sequence[JobView]]:
    """Return the jobs that are drawn, those with something left first, as many as fit; and the others."""
    room = max(1, min(_MOST_JOBS, height - 2 * len(view.providers) - len(view.notes) - 5))
    if len(view.jobs) <= room:
        return view.jobs, []
    chosen = [*(job for job in view.jobs if job.left), *(job for job in view.jobs if not job.left)][:room]
    names = {job.name for job in chosen}
    return [job for job in view.jobs if job.name in names], [job for job in view.jobs if job.name not in names]


def _others(jobs: Sequence[JobView]) -> list[Text]:
    ended = sum(not job.left for job in jobs)
    facts = [f"{len(jobs)} more jobs", *([f"{ended} ended"] if ended else [])]
    left = sum(job.left for job in jobs)
    return [Text(fact, "dim") for fact in [*facts, *([f"{left:,} left"] if left else [])]]


def _job_lines(jobs: Sequence[JobView], now: float, width: int) -> tuple[list[Text], bool]:
    """Return the jobs in aligned columns, and whether their costs and ends have room there.

    The bar stands above the facts if it does not fit beside them.
    """
    name = min(_LONGEST_NAME, max(8, width // 4), max((len(job.name) for job in jobs), default=0))
    facts = _columns([job_cells(job) for job in jobs])
    ends = _columns([[SEPARATOR.join(end_facts(job, now))] for job in jobs])
    rest = width - name - 2
    has_ends = width >= _WIDE and rest - _length(facts) - _length(ends) >= 2 * _LEAST_BAR
    ends = ends if has_ends else [""] * len(jobs)
    bar = min(_MOST_BAR, rest - _length(facts) - _length(ends))
    lines = []
    for job, row, end in zip(jobs, facts, ends, strict=True):
        head = Text(_shortened(printable(job.name), name).ljust(name + 1))
        if bar >= _LEAST_BAR:
            lines.append(head + _bar(job, bar) + Text(row) + Text(end, "dim"))
        else:
            lines.append(head + _bar(job, max(1, width - name - 1)))
            lines += _wrapped([Text(fact) for fact in job_facts(job)], width, indent=2)
    return lines, has_ends


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return each row's cells joined and right-aligned; a column that is empty in every row is left out."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return ["".join(f"  {cell:>{wide}}" for cell, wide in zip(row, widths, strict=True) if wide) for row in rows]


def _length(column: Sequence[str]) -> int:
    return max(map(len, column), default=0)


def _bar(job: JobView, width: int) -> Text:
    """Return a bar; each part that is not zero is at least one column wide."""
    if not job.total:
        return Text(LEFT * width, "dim")
    failed = min(width, max(1, round(width * job.failed / job.total))) if job.failed else 0
    done = min(width - failed, int(width * job.done / job.total))
    if job.left and done + failed >= width:
        done = max(0, width - failed - 1)
    parts = [(DONE * done, "green"), (FAILED * failed, "red")]
    return Text.assemble(*parts, (LEFT * (width - done - failed), "dim"))


def _provider_lines(provider: ProviderView, view: View, width: int) -> list[Text]:
    bottleneck = bottleneck_of(provider, view.now)
    facts = [Text(fact, "bold" if fact == bottleneck else "") for fact in provider_facts(provider, view.now)]
    return _wrapped([Text.assemble((printable(provider.name), "bold"), "  ", facts[0]), *facts[1:]], width)


def _sum(view: View, *, alone: bool) -> list[Text]:
    """Return the facts of all jobs; if there is one job, those that its own line may not have room for."""
    total = view.total
    facts = [f"all {len(view.jobs)} jobs", *job_facts(total)] if len(view.jobs) > 1 else []
    facts += [] if alone else end_facts(total, view.now)
    stopping = [Text("stopping: calls in flight finish", "bold")] if view.stopping else []
    facts += [view.thumbnails] if view.thumbnails else []
    return [*(Text(fact) for fact in facts), *stopping]


def _wrapped(facts: Sequence[Text], width: int, indent: int = 0) -> list[Text]:
    """Return facts joined into lines of at most `width` columns; a longer single fact is wrapped at its words."""
    lines: list[Text] = []
    for fact in (part for whole in facts for part in whole.wrap(_PLAIN, max(1, width - 2))):
        if lines and len(lines[-1]) + len(SEPARATOR) + len(fact) <= width:
            lines[-1] = lines[-1] + Text(SEPARATOR, "dim") + fact
        else:
            lines.append(Text(" " * (indent or (2 if lines else 0))) + fact)
    return lines


def _shortened(name: str, width: int) -> str:
    return name if len(name) <= width else f"{name[: width - 1]}…"
