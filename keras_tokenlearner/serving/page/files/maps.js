// Attention maps as pictures: larger, coloured, and in words. A map is a list of rows of weights.

// Colours of matplotlib's "inferno", evenly spaced.
const INFERNO = [
  [0, 0, 4], [27, 12, 65], [74, 12, 107], [120, 28, 109], [165, 44, 96],
  [207, 68, 70], [237, 105, 37], [251, 155, 6], [247, 209, 61], [252, 255, 164],
];
const SIZE = 192; // pixels of the longer edge of a coloured map

// Weights of four neighbours for a place between the second and the third: Keys' cubic, a = -1/2.
function cubic(t) {
  return [
    ((-0.5 * t + 1) * t - 0.5) * t,
    (1.5 * t - 2.5) * t * t + 1,
    ((-1.5 * t + 2) * t + 0.5) * t,
    (0.5 * t - 0.5) * t * t,
  ];
}

// Resample a list of numbers to another length.
function stretch(values, length) {
  const last = values.length - 1;
  return Array.from({ length }, (_, place) => {
    const at = ((place + 0.5) * values.length) / length - 0.5;
    const start = Math.floor(at);
    return cubic(at - start).reduce(
      (sum, weight, i) => sum + weight * values[Math.min(Math.max(start - 1 + i, 0), last)],
      0,
    );
  });
}

const turned = (rows) => rows[0].map((_, column) => rows.map((row) => row[column]));

// Return a smooth map with more rows and columns.
export function enlarged(map) {
  const scale = SIZE / Math.max(map.length, map[0].length);
  const [height, width] = [map.length, map[0].length].map((edge) => Math.round(edge * scale));
  const wide = map.map((row) => stretch(row, width));
  return turned(turned(wide).map((column) => stretch(column, height)));
}

function canvasOf(map, colour) {
  const canvas = document.createElement("canvas");
  [canvas.height, canvas.width] = [map.length, map[0].length];
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  map.flat().forEach((value, i) => image.data.set([...colour(value), 255], 4 * i));
  context.putImageData(image, 0, 0);
  return canvas;
}

// Draw a map on a canvas: its lowest weight is black, its highest weight is bright.
export function heat(map) {
  const values = map.flat();
  const low = Math.min(...values);
  const range = Math.max(Math.max(...values) - low, 1e-9);
  return canvasOf(map, (value) => {
    const at = ((value - low) / range) * (INFERNO.length - 1);
    const start = Math.min(Math.floor(at), INFERNO.length - 2);
    return INFERNO[start].map((x, i) => x + (INFERNO[start + 1][i] - x) * (at - start));
  });
}

// Return the colour of one of `count` tokens, as red, green and blue.
export function tokenColour(token, count) {
  const hue = (6 * token) / count;
  return [5, 3, 1].map((shift) => {
    const at = (shift + hue) % 6;
    return 255 * (0.25 + 0.75 * (1 - Math.max(0, Math.min(at, 4 - at, 1))));
  });
}

// Return a canvas with the colour of the strongest token at each position: the token whose map is
// largest compared with its mean.
export function strongest(maps) {
  const means = maps.map((map) => map.flat().reduce((a, b) => a + b) / map.flat().length || 1e-9);
  const winners = maps[0].map((row, y) =>
    row.map((_, x) => {
      const shares = maps.map((map, token) => map[y][x] / means[token]);
      return shares.indexOf(Math.max(...shares));
    }),
  );
  return canvasOf(winners, (token) => tokenColour(token, maps.length));
}

// Name the ninth of the picture with the largest weight of a token, and its share of the weight.
export function inWords(map) {
  const sums = new Map();
  let total = 0;
  map.forEach((row, y) =>
    row.forEach((weight, x) => {
      const down = ["upper", "middle", "lower"][Math.floor((3 * (y + 0.5)) / map.length)];
      const across = ["left", "middle", "right"][Math.floor((3 * (x + 0.5)) / row.length)];
      const place = down === "middle" && across === "middle" ? "centre" : `${down} ${across}`;
      sums.set(place, (sums.get(place) ?? 0) + weight);
      total += weight;
    }),
  );
  const [place, sum] = [...sums].reduce((a, b) => (b[1] > a[1] ? b : a));
  return `most weight in the ${place} (${Math.round((100 * sum) / (total || 1))}%)`;
}
