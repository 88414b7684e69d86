// The sampler once more, in JavaScript: reads the vectors named on the command
// line, demands the same bits, prints how many checks passed. It is written to
// be read beside segue_protocol/sampling.py, not to be fast.
import { readFileSync } from "node:fs";

const bits = new DataView(new ArrayBuffer(8));

// x = mantissa * 2^exponent with the mantissa in [0.5, 1); normal doubles only.
function frexp(x) {
  bits.setFloat64(0, x);
  const high = bits.getUint32(0);
  bits.setUint32(0, ((high & 0x800fffff) | 0x3fe00000) >>> 0);
  return [bits.getFloat64(0), ((high >>> 20) & 0x7ff) - 1022];
}

function powerOfTwo(exponent) {
  bits.setUint32(0, ((exponent + 1023) << 20) >>> 0);
  bits.setUint32(4, 0);
  return bits.getFloat64(0);
}

const horner = (coefficients, z) => coefficients.reduceRight((total, each) => total * z + each);
const LN2_HIGH = 6.93147180369123816490e-01;
const LN2_LOW = 1.90821492927058770002e-10;
const LOG_SERIES = [
  6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01,
  2.222219843214978396e-01, 1.818357216161805012e-01, 1.531383769920937332e-01,
  1.479819860511658591e-01,
];
const EXP_SERIES = [
  1.66666666666666019037e-01, -2.77777777770155933842e-03, 6.61375632143793436117e-05,
  -1.65339022054652515390e-06, 4.13813679705723846039e-08,
];

function log(x) {
  let [mantissa, exponent] = frexp(x);
  if (mantissa < 0.7071067811865476) [mantissa, exponent] = [mantissa * 2, exponent - 1];
  const f = mantissa - 1;
  const s = f / (2 + f);
  const z = s * s;
  const halfSquare = 0.5 * f * f;
  const series = z * horner(LOG_SERIES, z);
  return exponent * LN2_HIGH - (halfSquare - (s * (halfSquare + series) + exponent * LN2_LOW) - f);
}

function exp(x) {
  if (x < -708) return 0;
  const k = Math.floor(x * 1.44269504088896338700 + 0.5);
  const high = x - k * LN2_HIGH;
  const low = k * LN2_LOW;
  const r = high - low;
  const z = r * r;
  const c = r - z * horner(EXP_SERIES, z);
  return (1 - (low - (r * c) / (2 - c) - high)) * powerOfTwo(k);
}

function philox(counter, key) {
  let [c0, c1, c2, c3] = counter.map(BigInt);
  let [k0, k1] = [key & 0xffffffffn, key >> 32n];
  for (let round = 0; round < 10; round++) {
    const product0 = c0 * 0xd2511f53n;
    const product1 = c2 * 0xcd9e8d57n;
    [c0, c1] = [(product1 >> 32n) ^ c1 ^ k0, product1 & 0xffffffffn];
    [c2, c3] = [(product0 >> 32n) ^ c3 ^ k1, product0 & 0xffffffffn];
    k0 = (k0 + 0x9e3779b9n) & 0xffffffffn;
    k1 = (k1 + 0xbb67ae85n) & 0xffffffffn;
  }
  return [c0, c1, c2, c3].map(Number);
}

function uniform(tokenId, index, seed) {
  const [high, low] = philox([tokenId, index, 0, 0], seed);
  const chosen = high * 2 ** 20 + (low >>> 12);
  return chosen * 2 ** -52 + 2 ** -53;
}

const gumbel = (tokenId, index, seed) => -log(-log(uniform(tokenId, index, seed)));

const descending = (a, b) => b.score - a.score || a.id - b.id;

function nucleus(sorted, topP) {
  const weights = sorted.map(({ score }) => Math.floor(exp(score - sorted[0].score) * 2 ** 34));
  const wanted = topP * weights.reduce((total, weight) => total + weight, 0);
  let reached = 0;
  const end = weights.findIndex((weight) => (reached += weight) >= wanted);
  return sorted.slice(0, end + 1);
}

function sample(logits, settings, index) {
  const scores = logits.map((logit) => (logit === null ? -Infinity : logit));
  for (const [id, bias] of Object.entries(settings.logit_bias)) scores[id] += bias;
  if (settings.repetition_penalty !== 1)
    for (const id of new Set([...settings.prompt_ids, ...settings.output_ids]))
      scores[id] = scores[id] > 0
        ? scores[id] / settings.repetition_penalty
        : scores[id] * settings.repetition_penalty;
  for (const id of new Set(settings.output_ids)) {
    const count = settings.output_ids.filter((each) => each === id).length;
    scores[id] -= settings.frequency_penalty * count;
    scores[id] -= settings.presence_penalty;
  }
  let left = scores.map((score, id) => ({ score, id })).filter(({ score }) => score > -Infinity);
  if (settings.temperature > 0) {
    const seed = BigInt(settings.seed);
    left = left.map(({ score, id }) => ({ score: score / settings.temperature, id }));
    left.sort(descending);
    if (settings.top_k > 0) left = left.slice(0, settings.top_k);
    if (settings.top_p < 1) left = nucleus(left, settings.top_p);
    const best = left[0].score;
    if (settings.min_p > 0) left = left.filter(({ score }) => exp(score - best) >= settings.min_p);
    left = left.map(({ score, id }) => ({ score: score + gumbel(id, index, seed), id }));
  }
  left.sort(descending);
  return [left[0].id, left.length > 1 ? left[0].score - left[1].score : null];
}

let checks = 0;
function demandSame(found, expected, what) {
  checks++;
  if (JSON.stringify(found) !== JSON.stringify(expected))
    throw new Error(`${what}: found ${JSON.stringify(found)}, expected ${JSON.stringify(expected)}`);
}

const vectors = JSON.parse(readFileSync(process.argv[2], "utf8"));
for (const { counter, key, words } of vectors.philox)
  demandSame(philox(counter, BigInt(key)), words, "philox");
for (const [x, y] of vectors.log) demandSame(log(x), y, `log ${x}`);
for (const [x, y] of vectors.exp) demandSame(exp(x), y, `exp ${x}`);
for (const { seed, index, token_id, uniform: u, gumbel: g } of vectors.noise) {
  demandSame(uniform(token_id, index, BigInt(seed)), u, "uniform");
  demandSame(gumbel(token_id, index, BigInt(seed)), g, "gumbel");
}
const rows = new Map(vectors.rows.map(({ name, logits }) => [name, logits]));
for (const settings of vectors.sampling) {
  const made = settings.token_ids.map((_, index) => sample(rows.get(settings.row), settings, index));
  demandSame(made.map(([id]) => id), settings.token_ids, `ids of ${JSON.stringify(settings)}`);
  demandSame(made.map(([, margin]) => margin), settings.margins, "margins");
}
console.log(checks);
