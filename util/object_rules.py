"""Which instances of a picture are single objects: classes and shapes (SIEDOB).

Each rule is for one foreground class; the order of the rules is the order of the classes in an object network's input.
"""

from __future__ import annotations

from dataclasses import dataclass

from util.errors import UserError

ANY_ASPECT = (0.0, 100.0)
DEFAULT_FILL = 0.35  # of the box; the authors' value for persons


@dataclass(frozen=True)
class ObjectRule:
    """One foreground class.

    Args:
        label: its id.
        fill: an instance counts if it covers more than this share of its box.
        aspect: and if height / width of the box lies strictly between these.
    """

    label: int
    fill: float = DEFAULT_FILL
    aspect: tuple[float, float] = ANY_ASPECT

    def accepts(self, *, area: float, height: int, width: int) -> bool:
        """Return whether an instance of `area` pixels in a box of this size is an object."""
        return area / (height * width) > self.fill and self.aspect[0] < height / width < self.aspect[1]

    def __str__(self) -> str:
        return f"{self.label}:{self.fill:g}:{self.aspect[0]:g}:{self.aspect[1]:g}"


def parse_rules(text: str, names: list[str], described: tuple[ObjectRule, ...], flag: str) -> tuple[ObjectRule, ...]:
    """Read "car,person:0.35:2:6": classes by name or id, each with its own numbers or as the data set describes it.

    Args:
        names: of all classes, for names in the text.
        described: rules of the data set.

    Raises:
        UserError: naming the flag.
    """
    known = {rule.label: rule for rule in described}
    rules = []
    for part in filter(None, text.split(",")):
        name, *numbers = part.split(":")
        label = int(name) if name.isdecimal() else names.index(name) if name in names else None
        if label is None:
            raise UserError(f"{flag}: no class '{name}'. Known: {', '.join(names)}")
        try:
            fill, low, high = (*map(float, numbers), *(DEFAULT_FILL, *ANY_ASPECT)[len(numbers) :])
        except ValueError:
            raise UserError(f"{flag}: '{part}' is not CLASS[:FILL[:MIN_ASPECT:MAX_ASPECT]], as in car:0.6") from None
        given = ObjectRule(label, fill, (low, high))
        rules.append(known.get(label, given) if not numbers else given)
    if faulty := [rule for rule in rules if not (0 <= rule.fill < 1 and 0 <= rule.aspect[0] < rule.aspect[1])]:
        raise UserError(f"{flag}: '{faulty[0]}': FILL is in [0, 1), and 0 <= MIN_ASPECT < MAX_ASPECT")
    if len({rule.label for rule in rules}) < len(rules):
        raise UserError(f"{flag} {text}: a class is named twice")
    return tuple(rules)
