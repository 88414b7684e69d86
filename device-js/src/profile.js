/** How fast this device is: a measurement with the real engine. */

import { ContextTooLong } from "./errors.js";
import { SAMPLING_DEFAULTS } from "./samplingOptions.js";
import { sample } from "./sampling.js";
import { systemClock } from "./clock.js";
import { DeviceProfile } from "./timeline.js";

const DECODE_TOKENS = 8;
const HANDOVER_S = 0.02;

/**
 * Time two prefills and some decoding; the cache is empty afterwards. The profile is
 * a line through the two: an answer scales it by what it sees itself.
 * @param {import("./engines/base.js").Engine} engine
 * @param {import("./clock.js").Clock} [clock]
 */
export async function measureProfile(engine, clock = systemClock) {
  const { maxContextTokens, chunkTokens } = engine.capabilities;
  const long = Math.min(2 * chunkTokens, maxContextTokens - DECODE_TOKENS);
  const short = Math.floor(long / 4);
  if (short < 1) {
    throw new ContextTooLong(
      `a context of ${maxContextTokens} tokens is too short to measure in; load the engine with ` +
        "a larger one, or pass a profile",
    );
  }
  const { signal } = new AbortController();
  const timed = async (/** @type {number} */ tokens) => {
    await engine.rewind(0);
    const beganS = clock.nowS();
    await engine.append(new Array(tokens).fill(0), { signal });
    return clock.nowS() - beganS;
  };
  await timed(short); // loading leaves allocations and compilation to the first call
  const shortS = await timed(short);
  const longS = Math.max(await timed(long), shortS);
  const beganS = clock.nowS();
  for (let index = 0; index < DECODE_TOKENS; index++) {
    const place = { promptIds: [], outputIds: [], index };
    const { tokenId } = sample(await engine.logits(), SAMPLING_DEFAULTS, place);
    await engine.append([tokenId], { signal });
  }
  const decodeS = (clock.nowS() - beganS) / DECODE_TOKENS;
  await engine.rewind(0);
  const perTokenS = (longS - shortS) / (long - short);
  return new DeviceProfile({
    prefillBaseS: Math.max(0, shortS - perTokenS * short),
    prefillPerTokenS: perTokenS,
    prefillPerToken2S: 0,
    decodeS: Math.max(decodeS, 1e-6), // clocks of browsers are coarse
    handoverS: HANDOVER_S,
  });
}
