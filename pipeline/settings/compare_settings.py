"""Settings of --mode=compare.

Field, flag and function argument share one name.
"""

import dataclasses
import functools

from spidercap.pipeline.errors import UserError, check_choice
from spidercap.pipeline.metrics.registry import column_names
from spidercap.pipeline.settings.fields import Group, setting

_setting = functools.partial(setting, fixed=False, modes=("compare",), added=True)


@dataclasses.dataclass(frozen=True)
class CompareSettings(Group):
    """What --mode=compare shows of which runs."""

    workdirs: str = _setting(
        "",
        "mode=compare: workdirs separated by commas; runs whose settings differ only in the seed are one row. A label "
        "and a stage may be added, as in MLE=runs/pg_0:mle; by default it is the last stage that trains the captioner.",
    )
    curve_metric: str = _setting(
        "",
        "mode=compare: metric of the curves and of --within; default: the --best_metric of the runs.",
    )
    within: str = _setting(
        "",
        "mode=compare: seconds separated by commas; adds a table of the best validations within each.",
    )
    examples: int = _setting(
        24,
        "mode=compare: number of images, drawn at random, whose captions are on the page.",
    )

    def check(self) -> None:
        """Raises UserError for an unknown metric, and for limits that are no seconds."""
        if self.curve_metric:
            check_choice("curve_metric", self.curve_metric, column_names())
        self.limits()

    def limits(self) -> tuple[float, ...]:
        """Returns the numbers of --within; () without it.

        Raises:
          UserError: one is not a number above 0.
        """
        try:
            found = tuple(float(part) for part in self.within.split(",")) if self.within else ()
        except ValueError:
            found = (0.0,)
        if not all(0 < limit < float("inf") for limit in found):
            raise UserError(
                f"--within={self.within} is invalid; needed: seconds above 0 separated by commas, such as 120,240"
            )
        return found
