"""Scale and margin that fit the number of classes and the size of the features: bounds, and a choice inside them.

Face recognition's s = 64 and m = 0.5 were tuned for 10^4 to 10^7 classes. C is the number of classes, D the feature size.
"""

import math

from cifarnet.losses.options import MarginOptions
from cifarnet.losses.registry import LOSSES

CONFIDENCE = 0.99  # P, the probability that the target of a well placed feature shall reach


def least_scale(num_classes: int, probability: float = CONFIDENCE) -> float:
    """The least s at which a feature on its prototype can have `probability` (CosFace, arXiv 1801.09414, eq. 6).

    s >= (C-1)/C ln((C-1) P / (1-P)), reached when the prototypes stand as far apart as they can: 6.1 for C = 10.
    """
    others = num_classes - 1
    return others / num_classes * math.log(others * probability / (1 - probability))


def widest_angle(num_classes: int, features: int) -> float:
    """An upper bound on the angle between neighbouring prototypes, radians.

    acos(-1/(C-1)) where C <= D + 1 (the simplex, exact); 2 pi / C on the circle (exact); else the smaller of a right angle
    (Rankin 1955: of more than D + 1 directions two are no further apart, exact up to C = 2 D) and twice the radius of a cap that
    covers a C-th of the sphere, since caps of half the least angle around the prototypes do not overlap.
    """
    if num_classes <= features + 1:
        return math.acos(-1 / (num_classes - 1))
    if features == 1:
        return 0.0
    if features == 2:
        return 2 * math.pi / num_classes
    from scipy.special import betaincinv  # here, since it takes a tenth of a second to import

    # A cap of angle a <= pi/2 covers I_x((D-1)/2, 1/2) / 2 of the sphere, x = sin^2 a.
    sine_squared = float(betaincinv((features - 1) / 2, 0.5, 2 / num_classes))
    return min(2 * math.asin(math.sqrt(sine_squared)), math.pi / 2)


def widest_margin(loss: str, num_classes: int, features: int) -> float:
    """The largest m that features on their prototypes can satisfy: that angle, or for cosface 1 - cos of it.

    On the circle cosface's is 1 - cos(2 pi / C), 0.19 for C = 10; with D >= C - 1 it is C / (C-1) (arXiv 1801.09414, eq. 8).
    """
    angle = widest_angle(num_classes, features)
    return angle if LOSSES[loss].adds == "angle" else 1 - math.cos(angle)


def fitting_scale(num_classes: int) -> float:
    """Twice the least scale: P is then reached at half the ideal gap between own and other cosines. 12.2 for C = 10."""
    return round(2 * least_scale(num_classes), 1)


def gentle_margin(loss: str, num_classes: int) -> float:
    """The m that doubles the loss of a head at its start, where all angles are about 90 degrees and the loss is ln C.

    The margin takes s sin m (cosface: s m) off the target's logit there; at the fitting scale that shall be ln C: 0.19 for
    C = 10, 0.40 for 10^6. With more, few classes learn slowly: ResNet-18 with ArcFace on CIFAR-10 stands after 4 epochs at 66%
    of held-out images with m = 0.5 and at 80% with 0.2 (docs/recipes.md).
    """
    part = math.log(num_classes) / fitting_scale(num_classes)
    return math.asin(part) if LOSSES[loss].adds == "angle" else part


def fitting_margin(loss: str, default: float, num_classes: int, features: int) -> float:
    """The authors' margin, or less: the gentle one, or half of the widest (there is then room for both neighbours).

    SphereFace's multiplier and MagFace's range stay the authors'.
    """
    if not LOSSES[loss].adds:
        return default
    fitting = min(gentle_margin(loss, num_classes), widest_margin(loss, num_classes, features) / 2)
    return min(default, round(fitting, 3))


def misfits(options: MarginOptions, num_classes: int, features: int) -> list[str]:
    """The constants that cannot do their work with so many classes, in words for the user; empty where all is well."""
    notes = []
    least = least_scale(num_classes)
    scale = LOSSES[options.loss].constants.get("scale")
    if scale is not None and scale.auto and options.scale < least:
        notes.append(
            f"s = {options.scale:g} is below {least:.1f}, the least at which {num_classes} classes can reach "
            f"p = {CONFIDENCE} (CosFace eq. 6)"
        )
    if LOSSES[options.loss].adds:
        widest = widest_margin(options.loss, num_classes, features)
        if options.margin > widest:
            notes.append(
                f"m = {options.margin:g} is more than {widest:.2f}, the widest that {num_classes} classes in {features} "
                f"dimensions leave: the loss cannot be met"
            )
    return notes
