"""A report for people: aligned tables, lists of findings, advice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

from multitask_train.inspection.advice import Advice, percent, plural
from multitask_train.inspection.corpus import Findings
from multitask_train.inspection.counts import Spread
from multitask_train.inspection.pieces import BATCH_SIZE
from multitask_train.inspection.report import Report, SplitReport

# Rows of the tables of labels and types; --json has them all.
MAX_ROWS = 100
_NAME_WIDTH = 40

Row = Sequence[str]


def render(report: Report, advice: Sequence[Advice]) -> str:
    """The whole report, sections apart by blank lines."""
    window = report.windowing
    sections = [
        f"{' '.join(report.sources)}: in word pieces of {report.encoder}, windows of "
        f"{window.max_length} that overlap by {window.stride}",
        table(["", *(split.name for split in report.splits)], _rows(report.splits)),
        *_name_table("label", report.splits, lambda split: split.counts.labels),
        *_name_table("entity type", report.splits, lambda split: split.counts.types),
        *_overlap_table(report),
        *_findings(report),
        _advice(advice),
    ]
    return "\n\n".join(sections)


def table(header: Row, rows: Iterable[Row]) -> str:
    """Columns two spaces apart, the first flush left and the others right."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _rows(splits: Sequence[SplitReport]) -> Iterator[Row]:
    def row(title: str, figure: Callable[[SplitReport], object]) -> Row:
        return [title, *(_figure(figure(split)) for split in splits)]

    yield row("sentences", lambda one: one.counts.sentences)
    yield row("  with a label", lambda one: one.counts.labelled)
    yield row("  with entities marked", lambda one: one.counts.tagged)
    yield row("  with both", lambda one: one.counts.both)
    yield row("records that cannot be read", lambda one: one.faults)
    yield row("labels", lambda one: len(one.counts.labels))
    yield row("  commonest against rarest", lambda one: f"{one.counts.imbalance:.1f}")
    yield row("entities", lambda one: one.pieces.entities)
    yield row("  types", lambda one: len(one.counts.types))
    yield row("  not learned as annotated", lambda one: one.pieces.changed_entities.count)
    yield row("faults of BIO tags", lambda one: one.tag_faults.count)
    yield row("words a sentence: mean", lambda one: f"{one.pieces.words.mean:.1f}")
    yield row("  50 / 95 / 99 % / longest", lambda one: _spread(one.pieces.words))
    yield row("word pieces: mean", lambda one: f"{one.pieces.pieces.mean:.1f}")
    yield row("  50 / 95 / 99 % / longest", lambda one: _spread(one.pieces.pieces))
    yield row("texts longer than a window", lambda one: one.pieces.long_texts)
    yield row("  windows that these give", lambda one: one.pieces.long_windows)
    yield row(f"padding, random batches of {BATCH_SIZE}", lambda one: f"{one.pieces.padding:.1%}")
    yield row("  grouped by length, as in fit", lambda one: f"{one.pieces.padding_grouped:.1%}")
    yield row("words without a word piece", lambda one: one.pieces.lost_words.count)
    yield row("texts without a word piece", lambda one: one.pieces.empty_texts.count)
    yield row("unknown word pieces", lambda one: one.pieces.unknown)
    yield row("  share of all", lambda one: percent(one.pieces.unknown_share))
    yield row("repeated sentences", lambda one: one.repeats.folded)
    yield row("  equal to the character", lambda one: one.repeats.exact)
    yield row("texts annotated in several ways", lambda one: one.repeats.contradictions.count)


def _name_table(
    title: str, splits: Sequence[SplitReport], counts: Callable[[SplitReport], dict[str, int]]
) -> Iterator[str]:
    """Every label or type with its number and share in each split; nothing where there is none."""
    names = list(dict.fromkeys(chain.from_iterable(counts(split) for split in splits)))
    if not names:
        return
    totals = [sum(counts(split).values()) for split in splits]
    rows = [
        [
            _short(name),
            *chain.from_iterable(
                _share(counts(one).get(name, 0), total)
                for one, total in zip(splits, totals, strict=True)
            ),
        ]
        for name in names[:MAX_ROWS]
    ]
    lines = table([title, *chain.from_iterable((one.name, "share") for one in splits)], rows)
    more = len(names) - MAX_ROWS
    yield f"{lines}\n… and {more} more, all of them with --json" if more > 0 else lines


def _overlap_table(report: Report) -> Iterator[str]:
    if report.overlaps:
        header = ["sentences that stand elsewhere", "of", "found", "to the character", "contradict"]
        yield table(
            header,
            (
                [
                    f"{one.split} in {one.within}",
                    *map(_figure, (one.sentences, one.folded, one.exact, one.contradictions)),
                ]
                for one in report.overlaps
            ),
        )


def _findings(report: Report) -> Iterator[str]:
    yield from _listing("records that cannot be read", report.faults)
    for split in report.splits:
        pieces = split.pieces
        for title, findings in (
            ("BIO tags that continue nothing", split.tag_faults),
            ("texts annotated in several ways", split.repeats.contradictions),
            ("words without a word piece", pieces.lost_words),
            ("texts without a word piece", pieces.empty_texts),
            ("entities not learned as annotated", pieces.changed_entities),
        ):
            yield from _listing(f"{split.name}: {title}", findings)
        if pieces.unknown_words:
            words = ", ".join(f"{word!r} {n:,}" for word, n in pieces.unknown_words.items())
            yield f"{split.name}: commonest words with unknown pieces\n  {words}"
    for one in report.overlaps:
        yield from _listing(f"{one.split} sentences that stand in {one.within}", one.found)


def _listing(title: str, findings: Findings) -> Iterator[str]:
    if findings.count:
        more = findings.count - len(findings.first)
        tail = [f"  … and {more:,} more"] if more else []
        lines = [f"{title}: {findings.count:,}", *(f"  {one}" for one in findings.first), *tail]
        yield "\n".join(lines)


def _advice(advice: Sequence[Advice]) -> str:
    if not advice:
        return "nothing to mend was found"
    lines = [f"  {one.level}: {one.text}" for one in advice]
    return "\n".join([f"what to do: {plural(len(advice), 'finding', 'findings')}", *lines])


def _figure(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _spread(spread: Spread) -> str:
    return " / ".join(f"{value:,}" for value in (spread.p50, spread.p95, spread.p99, spread.max))


def _share(number: int, total: int) -> Row:
    return [f"{number:,}", f"{number / total:.1%}" if total else "–"]


def _short(name: str) -> str:
    name = name if name.isprintable() else repr(name)
    return name if len(name) <= _NAME_WIDTH else f"{name[: _NAME_WIDTH - 1]}…"
