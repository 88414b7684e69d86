/**
 * log and exp that give the same bits in numpy, torch and JavaScript.
 *
 * `Math.log` may round otherwise in every browser. Here they are made of double
 * + - * / and exact scaling by powers of two; the order of operations is that of
 * `segue_protocol.exactmath`, which says where the polynomials are from.
 */

const LN2_HIGH = 6.9314718036912381649e-1;
const LN2_LOW = 1.90821492927058770002e-10;
const INVERSE_LN2 = 1.442695040888963387;
const SQRT_HALF = 0.7071067811865476;

const LOG_SERIES = [
  6.66666666666673513e-1, 3.999999999940941908e-1, 2.857142874366239149e-1,
  2.222219843214978396e-1, 1.818357216161805012e-1, 1.531383769920937332e-1,
  1.479819860511658591e-1,
];
const EXP_SERIES = [
  1.66666666666666019037e-1, -2.77777777770155933842e-3, 6.61375632143793436117e-5,
  -1.65339022054652515390e-6, 4.13813679705723846039e-8,
];

/** Below it `exactExp` is exactly 0, so that no result is subnormal. */
const EXP_FLOOR = -708;

const bits = new DataView(new ArrayBuffer(8));

/**
 * Natural logarithm of a positive normal double.
 * @param {number} x
 */
export function exactLog(x) {
  // x = mantissa * 2^exponent with the mantissa in [0.5, 1)
  bits.setFloat64(0, x);
  const high = bits.getUint32(0);
  bits.setUint32(0, (high & 0x800fffff) | 0x3fe00000);
  let mantissa = bits.getFloat64(0);
  let exponent = ((high >>> 20) & 0x7ff) - 1022;
  if (mantissa < SQRT_HALF) {
    mantissa *= 2;
    exponent -= 1;
  }
  const f = mantissa - 1;
  const s = f / (2 + f);
  const z = s * s;
  const halfSquare = 0.5 * f * f;
  const series = z * horner(LOG_SERIES, z);
  return exponent * LN2_HIGH - (halfSquare - (s * (halfSquare + series) + exponent * LN2_LOW) - f);
}

/**
 * e^x of a finite x <= 0.
 * @param {number} x
 */
export function exactExp(x) {
  if (x < EXP_FLOOR) return 0;
  const k = Math.floor(x * INVERSE_LN2 + 0.5);
  const high = x - k * LN2_HIGH;
  const low = k * LN2_LOW;
  const r = high - low;
  const z = r * r;
  const c = r - z * horner(EXP_SERIES, z);
  return (1 - (low - (r * c) / (2 - c) - high)) * powerOfTwo(k);
}

/** @param {number} exponent */
function powerOfTwo(exponent) {
  bits.setUint32(0, (exponent + 1023) << 20);
  bits.setUint32(4, 0);
  return bits.getFloat64(0);
}

/**
 * @param {readonly number[]} coefficients
 * @param {number} z
 */
function horner(coefficients, z) {
  let total = coefficients[coefficients.length - 1];
  for (let i = coefficients.length - 2; i >= 0; i--) total = total * z + coefficients[i];
  return total;
}
