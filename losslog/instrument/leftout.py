"""Losses that are given at every step, and that no backward pass comes to: the loop forgot to add them.

Training thread. Contract:

- It takes 20 steps in a row in which other losses were reached, and four times as many after each return: adversaries
  and tasks take turns.
- What was a component is a warning and stays one, of weight 0; what never was is information, said once. Of a criterion
  that never was one nothing is said: it may be a metric.
- That it is detached in the sum is said where the total has its value.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from losslog.instrument.readings import GIVEN_UP
from losslog.values.snapshot import resolve
from losslog.values.totals import TOTAL_NAMES

if TYPE_CHECKING:
    from losslog.instrument.family import Family
    from losslog.instrument.logbook import Logbook
    from losslog.instrument.outputs import Output
    from losslog.instrument.rests import Rests
    from losslog.instrument.stepper import Heard

ENOUGH: Final = 20  # steps
HOPELESS: Final = 2000  # what needs more of them comes and goes


class LeftOut:
    """Counts for one observer.

    Args:
        logbook: has the run that is told.

    Attributes:
        waiting: whether any loss was left out lately.
    """

    def __init__(self, logbook: Logbook) -> None:
        self._logbook = logbook
        self._missed: dict[tuple[Family, str], list[int]] = {}  # the step it was missed at first, steps since
        self._needed: dict[tuple[Family, str], int] = {}
        self._said: set[tuple[Family, str]] = set()
        self.waiting = False

    @property
    def names(self) -> list[str]:
        """Of losses that were said to be in no backward pass, and still are."""
        return sorted({name for _, name in self._said})

    def lacks(self, family: Family, name: str) -> bool:
        """Whether a component is missed, and did not come and go before: such steps have what they are made of."""
        return name in family.ever and (family, name) in self._missed and (family, name) not in self._needed

    def whole(self, output: Output) -> None:
        """A step came to every loss of an output."""
        for name in output.names:
            self._returns((output.family, name))
        self.waiting = bool(self._missed)

    def stepped(self, heard: Sequence[Heard], outputs: Sequence[Output], idle: Sequence[Output], rests: Rests) -> None:
        """A step was taken.

        Args:
            heard: its backward passes.
            outputs: what they came to.
            idle: what they did not come to, over the same batches.
            rests: knows what is in a total by its value.
        """
        reached = {(output.family, output.names[index]) for each in heard for output, index, _ in each.root.reached}
        given = dict.fromkeys(
            (output.family, name)
            for output in outputs if output.named
            for index, name in enumerate(output.names)
            if output.marks[index] is not None and index not in output.totals
            and name not in TOTAL_NAMES and name not in rests.again
        )  # fmt: skip
        graded = [each for each in idle if each.graded]
        given |= dict.fromkeys(
            (each.family, name) for each in graded for name in each.names if name in each.family.ever
        )
        for key in reached:
            self._returns(key)
        run = self._logbook.made
        step = run.next_step if run is not None else 0
        due = []
        for key in given:
            if key not in reached and key not in self._said:
                missed = self._missed.setdefault(key, [step, 0])
                missed[1] += 1
                if missed[1] == self._needed.get(key, ENOUGH) <= HOPELESS:
                    due.append(key)
        self.waiting = bool(self._missed)
        if due:
            self._tell(due, _counted(heard, [*outputs, *idle], given.keys() - reached, rests))

    def _returns(self, key: tuple[Family, str]) -> None:
        missed = self._missed.pop(key, None)
        if missed is not None:
            family, name = key
            family.left_out.discard(name)
            self._said.discard(key)
            self._needed[key] = 4 * self._needed.get(key, ENOUGH)

    def _tell(self, due: Sequence[tuple[Family, str]], counted: set[str]) -> None:
        run: Any = self._logbook.made
        self._said.update(due)
        never = [name for family, name in due if name not in family.ever]
        if never:
            names, are = ", ".join(never), "is" if len(never) == 1 else "are"
            text = f"{names}: returned at every step and in no backward pass, so that nothing is trained by it. " \
                   "Left out of the sum, or detached in it?"  # fmt: skip
            run.alert(f"{names} {are} in no backward pass", text, "info", key=f"left-out/{names}",
                      component=never[0] if len(never) == 1 else None)  # fmt: skip
        for family, name in due:
            if name in family.ever:
                family.left_out.add(name)
                since = self._missed[family, name][0]
                text, title = f"{name} trains nothing since step {since}: ", f"{name} is in no backward pass"
                if name in counted:
                    title = f"{name} is detached in the sum"
                    text += "it is in the total by its value, but detached, so that no gradient comes to it."
                else:
                    text += "it is computed, and no backward pass comes to it. Left out of the sum, or detached?"
                run.alert(title, text, "warning", key=f"left-out/{name}", component=name,
                          cause="not_trained", evidence={"step": since, "lost": {}})  # fmt: skip


def _counted(
    heard: Sequence[Heard], outputs: Iterable[Output], missing: Collection[tuple[Family, str]], rests: Rests
) -> set[str]:
    """Which losses are in a step's total by their values, though no gradient came to them; waits for the device."""
    total = explained = 0.0
    for each in heard:
        scale = float(each.root.scale)
        if scale < GIVEN_UP:
            return set()
        total += float(each.root.value) / scale
        for output, index, gradient in each.root.reached:
            explained += float(gradient) / scale * resolve(output.values)[index]
    values: dict[str, float] = {}
    for output in dict.fromkeys(outputs):
        for index, name in enumerate(output.names):
            if (output.family, name) in missing and name in output.family.ever:
                values[name] = values.get(name, 0.0) + resolve(output.values)[index]
    return {name for name, weight in rests.unheard(total - explained, total, values).items() if weight}
