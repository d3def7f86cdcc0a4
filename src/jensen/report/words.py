"""The words of a page about one family of models: captions and formulas, nothing that is computed."""

from collections.abc import Mapping
from dataclasses import dataclass

from jensen.evaluation.exhibits import Selection


@dataclass(frozen=True)
class Words:
    """How a page describes the models of one family; every string but `name` is HTML.

    `jensen.recipe` has one such value for each family. A formula's number in parentheses becomes a link to the formula.
    """

    name: str
    formulas: Mapping[str, str]
    """What a bound, term or gap is, by its name. A key that ends in an underscore also matches longer names."""
    loss: str
    """What training minimises."""
    samples: str
    """How a sample is drawn."""
    codes: str
    """What the latent representation is."""
    points: int
    """Number of examples in the latent plane: as many as are quick to encode."""
    means: str | None = None
    """What the mean of a sample is; None where it is the sample itself."""
    reconstructions: str | None = None
    """What a reconstruction is; None where it is the example itself."""
    comparable: bool = True
    """Whether the training loss is the negative bound in nats, up to the choice of the objective."""

    def formula(self, name: str) -> str:
        """What the row `name` of the table of bounds is; empty where that is unknown."""
        for key, formula in self.formulas.items():
            if name == key or (key.endswith("_") and name.startswith(key)):
                return formula
        return ""

    def selection(self, image: bool, *, compared: bool = False) -> Selection:
        """The exhibits that a page needs: all of them for a report, only samples and films for a comparison."""
        return Selection(
            image=image,
            means=self.means is not None,
            reconstructions=self.reconstructions is not None and not compared,
            points=0 if compared else self.points,
            examples=not compared,
        )
