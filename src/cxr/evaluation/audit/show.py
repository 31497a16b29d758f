"""The audit at the terminal. Knows nothing of how it was measured."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from cxr.evaluation.audit.audit import Audit
from cxr.evaluation.audit.verdicts import ENCODED, SHORTCUT, UNTESTABLE, WEAK, AuditRow

_STYLES = {SHORTCUT: "bold red", ENCODED: "yellow", WEAK: "yellow", UNTESTABLE: "dim"}


def show_audit(audit: Audit, console: Console | None = None) -> None:
    """Print a table of all rows, then the sentence of each.

    Args:
        audit: The result.
        console: Where to; None is the standard output.
    """
    out = Console() if console is None else console
    table = Table(title="how much of the label can be had without the disease", title_justify="left", box=SIMPLE_HEAD,
                  padding=(0, 1, 0, 0), pad_edge=False)  # fmt: skip
    for name in ("baseline", "on", "patients", "AUROC", "95%", "chance", "p", "verdict"):
        table.add_column(name, justify="left" if name in ("baseline", "on", "verdict") else "right")
    for row in audit.rows:
        table.add_row(*_cells(row), style=_STYLES.get(row.verdict))
    out.print(table)
    for row in audit.rows:
        out.print(f"- {row.sentence}", style=_STYLES.get(row.verdict), highlight=False, soft_wrap=True, markup=False)


def _cells(row: AuditRow) -> tuple[str, ...]:
    name = f"{row.name} {row.column}".strip()
    found = row.separation
    if found is None or row.p_adjusted is None:
        return (name, row.scope, "", "", "", "", "", row.verdict)
    interval, chance = (f"{low:.2f}–{high:.2f}" for low, high in (found.interval, found.chance))
    numbers = f"{found.patients:,}", f"{found.auroc:.3f}", interval, chance, f"{row.p_adjusted:.3f}"
    return (name, row.scope, *numbers, row.verdict)
