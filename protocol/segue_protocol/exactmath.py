"""log and exp that give the same bits in numpy, torch and JavaScript.

Every libm rounds these two a little differently. Here they are made of
IEEE 754 double + - * / and exact scaling by powers of two only, one rounding
an operation and no fused multiply-add, so that every machine agrees. The
polynomials are those of FreeBSD's msun (e_log.c, e_exp.c; Sun, 1993), accurate
to less than 1 ulp; their special cases are left out because no caller meets
them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

LN2_HIGH = 6.93147180369123816490e-01
LN2_LOW = 1.90821492927058770002e-10
INVERSE_LN2 = 1.44269504088896338700e00
SQRT_HALF = 0.7071067811865476

LOG_SERIES = (
    6.666666666666735130e-01,
    3.999999999940941908e-01,
    2.857142874366239149e-01,
    2.222219843214978396e-01,
    1.818357216161805012e-01,
    1.531383769920937332e-01,
    1.479819860511658591e-01,
)
EXP_SERIES = (
    1.66666666666666019037e-01,
    -2.77777777770155933842e-03,
    6.61375632143793436117e-05,
    -1.65339022054652515390e-06,
    4.13813679705723846039e-08,
)

EXP_FLOOR = -708.0
"""Below it :func:`exact_exp` is exactly 0, so that no result is subnormal."""


def exact_log(x: Doubles) -> Doubles:
    """Natural logarithm of positive normal doubles; error < 1 ulp."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < SQRT_HALF
    f = np.where(small, mantissa * 2.0, mantissa) - 1.0
    k = (exponent - small).astype(np.float64)
    s = f / (2.0 + f)
    z = s * s
    half_square = 0.5 * f * f
    series = z * _horner(LOG_SERIES, z)
    return k * LN2_HIGH - ((half_square - (s * (half_square + series) + k * LN2_LOW)) - f)


def exact_exp(x: Doubles) -> Doubles:
    """e^x of finite x <= 0; error < 1 ulp, 0 below ``EXP_FLOOR``."""
    clamped = np.maximum(x, EXP_FLOOR)
    k = np.floor(clamped * INVERSE_LN2 + 0.5)
    high = clamped - k * LN2_HIGH
    low = k * LN2_LOW
    r = high - low
    z = r * r
    c = r - z * _horner(EXP_SERIES, z)
    y = 1.0 - ((low - (r * c) / (2.0 - c)) - high)
    return np.where(x < EXP_FLOOR, 0.0, np.ldexp(y, k.astype(np.int32)))


def _horner(coefficients: tuple[float, ...], z: Doubles) -> Doubles:
    total = np.full_like(z, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total *= z
        total += coefficient
    return total
