"""The words of a page about one family of models: fixed captions and formulas."""

from collections.abc import Mapping
from dataclasses import dataclass

from jensen.evaluation.exhibits import Selection


@dataclass(frozen=True)
class Words:
    """The description of one family of models on a page; all strings except `name` are HTML.

    `jensen.recipe` has one `Words` for each family. A formula number in parentheses becomes a link to the formula.
    """

    name: str
    formulas: Mapping[str, str]
    """Explanation of each bound, term or gap, by name. A key that ends in an underscore also matches longer names."""
    loss: str
    """The training loss in words."""
    samples: str
    """Caption of the samples: the way they are drawn."""
    codes: str
    """The latent representation in words."""
    points: int
    """Number of examples in the latent plane, few enough to be encoded quickly."""
    means: str | None = None
    """Caption of the samples' means; None if a mean is the sample itself."""
    reconstructions: str | None = None
    """The reconstruction in words; None if it is the example itself."""
    comparable: bool = True
    """Whether the training loss is the negative bound in nats, up to the choice of the objective."""

    def formula(self, name: str) -> str:
        """The explanation of the row `name` in the table of bounds; empty if there is none."""
        for key, formula in self.formulas.items():
            if name == key or (key.endswith("_") and name.startswith(key)):
                return formula
        return ""

    def selection(self, image: bool, *, compared: bool = False) -> Selection:
        """The exhibits that a page needs: everything for a report, only samples and films for a comparison."""
        return Selection(
            image=image,
            means=self.means is not None,
            reconstructions=self.reconstructions is not None and not compared,
            points=0 if compared else self.points,
            examples=not compared,
        )
