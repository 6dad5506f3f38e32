// Colours of maps: viridis at 33 places, a diverging scale, and marks, as in the report's maps.

export const VIRIDIS = (
  "440154 460c5f 47186a 482273 472c7b 453681 424085 3e4989 3a528b 365a8c 32628d 2f6a8d 2c728e 287a8e 26818e 23898d 20908c " +
  "1e988a 1e9f88 21a784 28ae7f 32b57a 3ebc73 4dc26b 5ec961 70ce56 83d34b 97d83e addc30 c2df22 d7e219 ece41a fde724"
).split(" ");
export const DIVERGING = ["144097", "6e98e6", "f3f3f3", "6aab78", "095727"];
export const UNKNOWN = "9aa0a6";
export const UNREADABLE = "e01010";
export const OVER_RANGE = "ff9100";
const SHADES = 256;

/** A colour as a pixel of ImageData read as a 32-bit number. */
export function pixel(hex) {
  const [r, g, b] = [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16));
  return new Uint32Array(new Uint8Array([r, g, b, 255]).buffer)[0];
}

/** 256 pixels from the first colour to the last one. */
export function shades(colours) {
  const parts = colours.map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  const bytes = new Uint8Array(4 * SHADES);
  for (let k = 0; k < SHADES; k++) {
    const place = (k / (SHADES - 1)) * (parts.length - 1);
    const low = Math.min(Math.floor(place), parts.length - 2);
    for (let c = 0; c < 3; c++) {
      bytes[4 * k + c] = Math.round(parts[low][c] + (place - low) * (parts[low + 1][c] - parts[low][c]));
    }
    bytes[4 * k + 3] = 255;
  }
  return new Uint32Array(bytes.buffer);
}

/** A function that gives the pixel of a value on the scale from `low` to `high`. */
export function painter(colours, low, high) {
  const table = shades(colours);
  const [unknown, unreadable, over] = [UNKNOWN, UNREADABLE, OVER_RANGE].map(pixel);
  const slope = (SHADES - 1) / (high - low);
  return (value) => {
    if (value !== value) return unknown;
    if (value === -Infinity) return unreadable;
    if (value === Infinity) return over;
    const shade = (value - low) * slope;
    return table[shade <= 0 ? 0 : shade >= SHADES - 1 ? SHADES - 1 : (shade + 0.5) | 0];
  };
}
