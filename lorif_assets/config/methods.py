"""The methods that an evaluation compares: the one list of them, from which titles, defaults and functions follow."""

from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Self


class Need(Enum):
    """What a method's scores follow from, besides the examples, the queries and the checkpoint."""

    NOTHING = auto()
    ATTRIBUTION = auto()  # the stored factors and curvature
    ENCODER = auto()  # Influcoder's encoder, where `influcoder.enabled`
    EXACT_SCORES = auto()  # the stored exact scores too, where `exact_scores.enabled`
    TEXT_ENCODER = auto()  # `evaluation.text_encoder`


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to score training examples for queries.

    `function` is `module:name` in `evaluation.methods`: a name, since settings are read where no method is ever run. It
    may score by several methods at once.
    """

    name: str
    title: str
    explanation: str
    function: str
    needs: Need = Need.NOTHING
    by_default: bool = True
    version: int = 1
    """Raised where its scores are not what they were, so that stored ones are out of date."""
    extra: str | None = None
    """The extra of this project that has the method's library."""


class MethodName(StrEnum):
    """The methods by name. Their order decides their colours on pages, so a new one goes at the end."""

    definition: Method

    def __new__(cls, definition: Method) -> Self:
        """Return the name of a method."""
        name = str.__new__(cls, definition.name)
        name._value_ = definition.name
        name.definition = definition
        return name

    LORIF = Method(
        name="lorif",
        title="LoRIF",
        explanation="as configured, from the stored low-rank factors",
        function="lorif:lorif_scores",
        needs=Need.ATTRIBUTION,
    )
    LORIF_PAPER = Method(
        name="lorif_paper",
        title="LoRIF of the paper",
        explanation="rank 1, BF16, truncated, at the same projections",
        function="dense:paper_scores",
    )
    DENSE_LOGRA = Method(
        name="dense_logra",
        title="dense LoGRA",
        explanation="the exact inverse at the same projections",
        function="dense:logra_scores",
    )
    TRAK = Method(
        name="trak",
        title="TRAK-style",
        explanation="a single-checkpoint score in the manner of TRAK",
        function="gradients:gradient_scores",
    )
    GRADIENT_DOT = Method(
        name="gradient_dot",
        title="gradient dot product",
        explanation="no curvature",
        function="gradients:gradient_scores",
    )
    GRADIENT_COSINE = Method(
        name="gradient_cosine",
        title="gradient cosine",
        explanation="no curvature, no magnitude",
        function="gradients:gradient_scores",
    )
    INFLUCODER = Method(
        name="influcoder",
        title="Influcoder",
        explanation="cosine of a text encoder trained on influences",
        function="influcoder:influcoder_scores",
        needs=Need.ENCODER,
        extra="influcoder",
    )
    REPRESENTATION = Method(
        name="representation",
        title="representations",
        explanation="cosine of mean-pooled hidden states",
        function="representations:representation_scores",
    )
    BM25 = Method(
        name="bm25",
        title="BM25",
        explanation="shared words; no model",
        function="lexical:bm25_scores",
        version=3,  # as Lucene has it, Okapi's before; and of calls and reasoning in chats too
    )
    EKFAC = Method(
        name="ekfac",
        title="EK-FAC",
        explanation="by kronfluence, without projection; keeps no index",
        function="ekfac:ekfac_scores",
        by_default=False,
        extra="ekfac",
    )
    RANDOM = Method(name="random", title="random", explanation="the floor", function="lexical:random_scores")
    RELATIF = Method(
        name="relatif",
        title="RelatIF",
        explanation="LoRIF over the root of an example's influence on itself",
        function="relatif:relatif_scores",
        needs=Need.ATTRIBUTION,
        by_default=False,
    )
    EMBEDDINGS = Method(
        name="embeddings",
        title="embeddings",
        explanation="cosine of a text encoder as it is, `evaluation.text_encoder`; no model",
        function="embeddings:embedding_scores",
        version=2,  # of calls and reasoning in chats too
        needs=Need.TEXT_ENCODER,
        by_default=False,
        extra="influcoder",
    )
    HYBRID = Method(
        name="hybrid",
        title="RelatIF + BM25",
        explanation="reciprocal ranks by influence and by shared words, added",
        function="hybrid:hybrid_scores",
        version=2,  # by BM25 of calls and reasoning in chats too
        needs=Need.ATTRIBUTION,
        by_default=False,
    )
    EOGP = Method(
        name="eogp",
        title="EOGP",
        explanation="one bit for each axis of a PCA of half of the examples, at LoRIF's bytes; keeps the axes besides",
        function="eogp:eogp_scores",
        needs=Need.ATTRIBUTION,
        by_default=False,
    )
    EOGP_CROSSFIT = Method(
        name="eogp_crossfit",
        title="EOGP, cross-fitted",
        explanation="each half of the examples along the other's axes",
        function="eogp:eogp_scores",
        needs=Need.ATTRIBUTION,
        by_default=False,
    )
    EOGP_RANDOM = Method(
        name="eogp_random",
        title="EOGP-R",
        explanation="one bit for each random axis, at LoRIF's bytes",
        function="eogp:eogp_scores",
        needs=Need.ATTRIBUTION,
        by_default=False,
    )
    EKFAC_CG = Method(
        name="ekfac_cg",
        title="EK-FAC + CG",
        explanation="whole gradients, two rounds of conjugate gradients; keeps no index: a ceiling",
        function="ekfac_cg:conjugate_gradient_scores",
        needs=Need.ATTRIBUTION,  # the recipe's damping
        by_default=False,
    )
    LORIF_SHRUNK = Method(
        name="lorif_shrunk",
        title="LoRIF, shrunk",
        explanation="LoRIF's scores less what is noise in them, for sums; its rankings",
        function="lorif:shrunk_scores",
        needs=Need.ATTRIBUTION,
        version=2,
    )
    EXACT = Method(
        name="exact",
        title="LoRIF, ranked again",
        explanation="its leading examples in the order of whole gradients, as `exact_scores` stores them",
        function="exact:exact_scores",
        needs=Need.EXACT_SCORES,
        by_default=False,
    )


METHODS = {str(method): method.definition for method in MethodName}


def default_methods() -> tuple[MethodName, ...]:
    """Return the methods that are compared where the settings name none."""
    return tuple(method for method in MethodName if method.definition.by_default)


def methods_on_request() -> str:
    """Return the methods that are not compared by default, in words, with the extra that has their library."""
    methods = [method.definition for method in MethodName if not method.definition.by_default]
    return ", ".join(
        f"{method.name} (needs the extra {method.extra})" if method.extra else method.name for method in methods
    )


def method_title(name: str) -> str:
    """Return the title of a method whose scores are stored; one that is not listed keeps its name."""
    return METHODS[name].title if name in METHODS else name.replace("_", " ")


def method_explanation(name: str) -> str:
    """Return what a method is in a few words, or nothing for one that is not listed."""
    return METHODS[name].explanation if name in METHODS else ""
