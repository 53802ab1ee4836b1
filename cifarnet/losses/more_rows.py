"""The rows of the newer losses, for `registry.LOSSES`. Constants are the original authors'."""

from cifarnet.core.fields import Bounds
from cifarnet.losses.row import Constant, Loss, margin_of, scale_of

POSITIVE = Bounds(above=0, high=1000)
NATURAL = Bounds(low=0, high=1000)
PART = Bounds(low=0, high=1)
ONE_VS_ALL = "each class is a yes or no of its own, and the bound on s and m is softmax's"


def _choice(default: str, text: str, *choices: str) -> Constant:
    return Constant(default, text, Bounds(choices=choices), flag=True)


def _spread(default: float) -> Constant:
    return Constant(default, "standard deviation of ElasticFace's margins", Bounds(low=0, high=1))


PLUS = Constant(False, "ElasticFace+: the smallest drawn margin goes to the largest target cosine", flag=True)
_MV = {
    "t": Constant(0.2, "how much more a hard negative counts", NATURAL),
    "easy": Constant(True, "the margin only where the target cosine is positive"),
}
TAU = Constant(1.0, "weight of the log of the class frequencies", NATURAL)
ADACOS = {"scale": "its s follows from the classes", "margin": "it has no margin"}
VARIANT = "formula of sphereface-r or sphereface2"

MORE_LOSSES: dict[str, Loss] = {
    "ldam": Loss(
        "arXiv 1906.07413",
        {
            "scale": scale_of(30.0),
            "margin": margin_of(0.5),
            "drw": Constant(False, "ldam: weigh rare classes more in the last fifth of the training", flag=True),
            "beta": Constant(0.9999, "ldam: beta of the effective number of samples", Bounds(low=0, high=0.999999)),
        },
        ("progress", "least"),
        (0.0, 1.0),
        adds="cosine",
        borrows="cosface",
    ),
    "vs": Loss(
        "arXiv 2103.01550",
        {"gamma": Constant(0.3, "exponent of the class sizes", Bounds(low=0, high=10), flag=True), "tau": TAU},
        angular=False,
        kernels=(),
    ),
    "la": Loss("arXiv 2007.07314", {"tau": TAU}, angular=False, kernels=()),
    "adacos": Loss("arXiv 1905.00292", {}, ("s",), (0.0,), lacks=ADACOS),
    "adacos-fixed": Loss("arXiv 1905.00292", {}, borrows="cosface", lacks=ADACOS),
    "mv-arcface": Loss("arXiv 1912.00833", {"scale": scale_of(32.0), "margin": margin_of(0.35), **_MV}, adds="angle"),
    "mv-cosface": Loss("arXiv 1912.00833", {"scale": scale_of(32.0), "margin": margin_of(0.35), **_MV}, adds="cosine"),
    "elastic-arcface": Loss(
        "arXiv 2109.09416",
        {"scale": scale_of(64.0), "margin": margin_of(0.5), "sigma": _spread(0.05), "plus": PLUS},
        ("steps", "seed"),
        (0.0, 0.0),
        adds="angle",
        depending={("plus", True): {"sigma": 0.0175}},
    ),
    "elastic-cosface": Loss(
        "arXiv 2109.09416",
        {"scale": scale_of(64.0), "margin": margin_of(0.35), "sigma": _spread(0.05), "plus": PLUS},
        ("steps", "seed"),
        (0.0, 0.0),
        adds="cosine",
        depending={("plus", True): {"sigma": 0.02}},
    ),
    "subcenter-arcface": Loss(
        "ECCV 2020",
        {
            "scale": scale_of(64.0),
            "margin": margin_of(0.5),
            "subcenters": Constant(
                3, "sub-centres a class of subcenter-arcface", Bounds(choices=tuple(range(1, 11))), flag=True
            ),
        },
        adds="angle",
        kernels=("cpu",),
        borrows="arcface",
        spreads=False,
    ),
    "sphereface-r": Loss(
        "arXiv 2109.05565",
        {
            "scale": scale_of(60.0),
            "margin": margin_of(1.4, Bounds(low=1, high=10)),
            "variant": _choice("v2", VARIANT, "v0", "v1", "v2"),
            "norm": _choice("hard", "sphereface-r: s is fixed, or the feature's norm", "hard", "soft", "none"),
            "loss_weight": Constant(0.0, "the loss is multiplied by this / s; 0: it is not", NATURAL),
            "norm_weight": Constant(0.01, "norm=soft: weight of the norms' distance from s", NATURAL),
            "margin_step": Constant(
                0.0, "m grows from 1 to margin in steps of this; 0: it does not", Bounds(low=0, high=10)
            ),
        },
        depending={("variant", "v0"): {"scale": 30.0, "margin": 1.7}, ("norm", "soft"): {"loss_weight": 50.0}},
    ),
    "sphereface2": Loss(
        "arXiv 2108.01513",
        {
            "scale": scale_of(40.0, ONE_VS_ALL),
            "margin": margin_of(0.4, never_auto=ONE_VS_ALL),
            "variant": _choice("C", VARIANT, "C", "A", "M"),
            "balance": Constant(0.7, "lambda, the weight of the own class", Bounds(above=0, high=0.999)),
            "t": Constant(3.0, "exponent that spreads the cosines", Bounds(low=1, high=100)),
            "loss_weight": Constant(1.0, "the loss is multiplied by this / s", POSITIVE),
            "detach": Constant(False, "variant C: the transformed cosine is given the cosine's own gradient"),
        },
        depending={("variant", "A"): {"margin": 0.5}, ("variant", "M"): {"margin": 1.7}},
    ),
    "uniface": Loss(
        "ICCV 2023",
        {
            "scale": scale_of(64.0, ONE_VS_ALL),
            "margin": margin_of(0.4, never_auto=ONE_VS_ALL),
            "negative_weight": Constant(1.0, "l, the weight of the other classes", NATURAL),
        },
    ),
    "kappaface": Loss(
        "arXiv 2201.07394",
        {
            "scale": scale_of(64.0),
            "margin": margin_of(0.8),
            "temperature": Constant(0.4, "how sharply the classes' concentration counts", NATURAL),
            "gamma": Constant(0.7, "part of the concentration, the rest is the class size's", PART, flag=True),
        },
        adds="angle",
        borrows="arcface",
        spreads=False,
    ),
}
