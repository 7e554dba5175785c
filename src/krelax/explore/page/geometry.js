// The numbers of one neuron and of one group, for a page that has no server to ask. Tests hold every one of them
// against the library. Requests and answers are those of krelax.explore.small.

const TOUCHING = 1e-9;

export function octahedral(k) {
  let rows = [[]];
  for (let i = 0; i < k; i++) rows = rows.flatMap((row) => [-1, 0, 1].map((c) => [...row, c]));
  return rows.filter((row) => row.some((c) => c !== 0));
}

export const dot = (u, v) => u.reduce((sum, x, i) => sum + x * v[i], 0);
const act = (z, slope) => Math.max(z, slope * z);
const add = (u, v, t = 1) => u.map((x, i) => x + t * v[i]);

// Slope and intercept of a lower and an upper line of one neuron; null stands for the activation itself.
function lines(name, l, u, s) {
  if (name === "interval") return { lower: [0, act(l, s)], upper: [0, act(u, s)] };
  const chord = chordOf(l, u, s), [low, high] = slopeRange(l, u, s);
  const above = Math.max(...[l, Math.min(Math.max(0, l), u), u].map((z) => act(z, s) - chord * z));
  const slopes = { zonotope: chord, planar: u > -l ? high : low };
  return { lower: name === "triangle" ? null : [slopes[name], 0], upper: [chord, above] };
}

function chordOf(l, u, s) {
  if (l < 0 && u > 0) return Math.min(1, (u - s * l) / (u - l));
  return Math.max(...slopeRange(l, u, s));
}

const slopeRange = (l, u, s) => [l >= 0 ? 1 : s, u <= 0 && l < 0 ? s : 1];

// The sets of one neuron. A ReLU's are exact, those of other activations are made from points of their graphs.
export function neuron({ lower, upper, slope, activation = "ReLU", curve }) {
  return { sets: activation === "ReLU" ? bent(lower, upper, slope) : curved(lower, upper, slope, curve) };
}

function bent(lower, upper, slope) {
  const sets = {};
  for (const name of ["interval", "zonotope", "planar", "triangle"]) {
    const found = lines(name, lower, upper, 0);
    const corners = [lower, upper].flatMap((z) => [
      [z, found.lower ? at(found.lower, z) : act(z, 0)],
      [z, at(found.upper, z)],
    ]);
    if (name === "triangle" && lower < 0 && upper > 0) corners.push([0, 0]);
    sets[name] = measured(corners);
    if (found.lower && name !== "interval") Object.assign(sets[name], found);
  }
  const [low, high] = slopeRange(lower, upper, 0);
  const chosen = { lower: [Math.min(Math.max(slope, low), high), 0], upper: lines("planar", lower, upper, 0).upper };
  const corners = [lower, upper].flatMap((z) => [[z, at(chosen.lower, z)], [z, at(chosen.upper, z)]]);
  sets.alpha = { ...measured(corners), ...chosen };
  return sets;
}

const REACH = 3, DENSITY = 100;

// The points of a graph over an interval; its ends lie between two of them.
export function sampled(values, lower, upper) {
  const place = (z) => Math.min(Math.max((z + REACH) * DENSITY, 0), values.length - 1);
  const a = (z) => {
    const i = Math.min(Math.floor(place(z)), values.length - 2), part = place(z) - i;
    return values[i] * (1 - part) + values[i + 1] * part;
  };
  const inner = [];
  for (let i = Math.ceil(place(lower) + TOUCHING); i < place(upper) - TOUCHING; i++)
    inner.push([i / DENSITY - REACH, values[i]]);
  return [[lower, a(lower)], ...inner, [upper, a(upper)]];
}

function curved(lower, upper, slope, { values, flat }) {
  const graph = sampled(values, lower, upper), heights = graph.map((p) => p[1]), hull = polygon(graph);
  const slopes = graph.slice(1).map((p, i) => steepness(graph[i], p));
  const chord = steepness(graph[0], graph.at(-1)), middle = (lower + upper) / 2;
  const sides = [flat && upper > 0 ? upper : middle, flat && lower < 0 ? lower : middle];
  const [below, above] = facing(hull, sides, chord);
  const end = (first, second) => 1.5 * first - 0.5 * second;
  const band = flat ? Math.min(end(...slopes), end(...slopes.slice(-2).reverse())) : chord;
  const touching = (s, most) => [s, most(...graph.map(([z, a]) => a - s * z))];
  const between = (low, high) => {
    const found = { lower: touching(low, Math.min), upper: touching(high, Math.max) };
    return { ...measured([lower, upper].flatMap((z) => [[z, at(found.lower, z)], [z, at(found.upper, z)]])), ...found };
  };
  const chosen = Math.min(Math.max(slope, Math.min(...slopes)), Math.max(...slopes));
  const ends = [Math.min(...heights), Math.max(...heights)];
  return {
    interval: measured([lower, upper].flatMap((z) => ends.map((a) => [z, a]))),
    zonotope: between(band, band),
    planar: between(below, above),
    alpha: between(chosen, above),
    triangle: { corners: hull, area: area(hull) },
  };
}

const steepness = (p, q) => (q[1] - p[1]) / (q[0] - p[0]);

// The slopes of the sides of a hull below one place and above another. In the middle lines along them enclose the
// smallest area; those of S-shaped curves go through an end.
function facing(hull, [low, high], otherwise) {
  const found = [otherwise, otherwise];
  hull.forEach((p, i) => {
    const q = hull[(i + 1) % hull.length];
    if (p[0] < low && low <= q[0]) found[0] = steepness(p, q);
    if (q[0] <= high && high < p[0]) found[1] = steepness(p, q);
  });
  return found;
}

const at = ([slope, intercept], z) => slope * z + intercept;

function measured(points) {
  const corners = polygon(points);
  return { corners, area: area(corners) };
}

export function area(corners) {
  const next = (i) => corners[(i + 1) % corners.length];
  return corners.reduce((sum, [x, y], i) => sum + x * next(i)[1] - y * next(i)[0], 0) / 2;
}

// The corners of the convex hull of points in the plane, counterclockwise.
export function polygon(points) {
  const sorted = distinct(points).sort((p, q) => p[0] - q[0] || p[1] - q[1]);
  if (sorted.length < 3) return sorted;
  const size = Math.max(...[0, 1].map((i) => extent(sorted, i)));
  const half = (order) => {
    const chain = [];
    for (const p of order) {
      while (chain.length > 1 && turn(chain.at(-2), chain.at(-1), p) <= TOUCHING * size * size) chain.pop();
      chain.push(p);
    }
    return chain.slice(0, -1);
  };
  return [...half(sorted), ...half([...sorted].reverse())];
}

const turn = (a, b, c) => (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
const extent = (points, i) => Math.max(...points.map((p) => p[i])) - Math.min(...points.map((p) => p[i]));

export function distinct(points) {
  const seen = new Map();
  for (const p of points) seen.set(p.map((x) => Math.round(x / TOUCHING)).join(), p);
  return [...seen.values()];
}

export function group({ bounds, slopes, direction }) {
  const k = direction.length, z = vertices(octahedral(k), bounds, slopes);
  if (z.length === 0) return { empty: true };
  const graph = z.map((p) => [...p, ...activated(p, slopes)]);
  const value = (p) => dot(p.slice(k), direction);
  const largest = { hull: Math.max(...graph.map(value)) };
  for (const name of ["interval", "zonotope", "planar", "triangle"])
    largest[name] = Math.max(...spanning(z, slopes, name).map(value));
  const phantom = farthest(spanning(z, slopes, "triangle"), value);
  const best = farthest(graph, value);
  const onGraph = activated(best, slopes).every((a, i) => Math.abs(a - best[k + i]) <= 1e-6);
  return {
    empty: false,
    points: graph,
    largest,
    phantom,
    real: activated(phantom.slice(0, k), slopes),
    best: onGraph ? best : graph.reduce((p, q) => (value(q) > value(p) ? q : p)),
    facet: facet(z, graph.map(value), phantom.slice(0, k)),
  };
}

export const activated = (z, slopes) => slopes.map((s, i) => act(z[i], s));

// All points of the polytope where k of its faces and of the planes z_i = 0 meet: the vertices of its pieces. Like the
// closed form of the library, pairs are also cut where a member only passes through.
function vertices(rows, bounds, slopes) {
  const k = slopes.length, planes = rows.map((row, i) => [row, bounds[i]]);
  for (let i = 0; i < k; i++)
    if (k === 2 || slopes[i] !== 1) planes.push([slopes.map((_, j) => Number(i === j)), 0]);
  const room = TOUCHING * (1 + Math.max(...bounds.map(Math.abs)));
  const inside = (z) => rows.every((row, i) => dot(row, z) <= bounds[i] + room);
  const found = [];
  for (const some of subsets(planes, k)) {
    const z = meeting(some.map(([row]) => row), some.map(([, bound]) => bound));
    if (z && inside(z)) found.push(z);
  }
  return distinct(found);
}

function* subsets(list, k, from = 0) {
  if (k === 0) yield [];
  else
    for (let i = from; i <= list.length - k; i++)
      for (const rest of subsets(list, k - 1, i + 1)) yield [list[i], ...rest];
}

// The solution of two or three equations by Cramer's rule, null where there is none: determinants are whole numbers.
function meeting(rows, right) {
  const all = determinant(rows);
  if (Math.abs(all) < 0.5) return null;
  return rows.map((_, i) => determinant(rows.map((row, r) => row.with(i, right[r]))) / all);
}

function determinant(m) {
  if (m.length === 2) return m[0][0] * m[1][1] - m[0][1] * m[1][0];
  const minor = (i, j) => m[1][i] * m[2][j] - m[1][j] * m[2][i];
  return m[0][0] * minor(1, 2) - m[0][1] * minor(0, 2) + m[0][2] * minor(0, 1);
}

// Points (z, a) that span a relaxation of single neurons over the polytope whose pieces have the vertices z.
export function spanning(z, slopes, name) {
  const k = slopes.length;
  if (name === "hull") return z.map((p) => [...p, ...activated(p, slopes)]);
  const each = slopes.map((s, i) => {
    const ends = z.map((p) => p[i]);
    return lines(name, Math.min(...ends), Math.max(...ends), s);
  });
  return z.flatMap((p) => {
    let behind = [[]];
    for (let i = 0; i < k; i++) {
      const low = each[i].lower ? at(each[i].lower, p[i]) : act(p[i], slopes[i]), high = at(each[i].upper, p[i]);
      behind = behind.flatMap((a) => [[...a, low], [...a, high]]);
    }
    return behind.map((a) => [...p, ...a]);
  });
}

// The middle of all points where the value is largest.
function farthest(points, value) {
  const values = points.map(value), most = Math.max(...values);
  const room = TOUCHING * (1 + Math.max(...values.map(Math.abs)));
  const best = distinct(points.filter((_, i) => values[i] >= most - room));
  return best.reduce((sum, p) => add(sum, p), best[0].map(() => 0)).map((x) => x / best.length);
}

// The face of the upper hull of heights over points z that lies above the phantom, moved inwards by a little.
function facet(z, heights, phantom) {
  const uneven = [0.31, 0.17, 0.07], size = phantom.map((_, i) => extent(z, i) || 1);
  const least = phantom.map((_, i) => Math.min(...z.map((p) => p[i])));
  const weights = z.map((p) => 1 + p.reduce((sum, x, i) => sum + (uneven[i] * (x - least[i])) / size[i], 0));
  const total = weights.reduce((a, b) => a + b);
  const middle = z.reduce((sum, p, v) => add(sum, p, weights[v] / total), phantom.map(() => 0));
  const target = phantom.map((x, i) => x + 1e-3 * (middle[i] - x));
  const top = Math.max(...heights), spread = top - Math.min(...heights) || 1;
  const scaled = (p) => [...p.map((x, i) => (x - middle[i]) / size[i]), 1];
  const price = cheapest(z.map(scaled), heights.map((h) => (top - h) / spread), scaled(target));
  const slope = phantom.map((_, i) => (-spread * price[i]) / size[i]);
  const offset = Math.max(...z.map((p, v) => heights[v] - dot(slope, p)));
  return { slope, offset, at: dot(slope, phantom) + offset };
}

// Prices w, one for each equation, of the linear program min cost . x with sum x_v columns_v = target and x >= 0: the
// simplex method with a dense inverse, and artificial columns to start with.
function cheapest(columns, cost, target) {
  const n = target.length, BIG = 1e6;
  const inverse = target.map((t, i) => target.map((_, j) => (i === j ? (t >= 0 ? 1 : -1) : 0)));
  const level = target.map(Math.abs), price = target.map(() => BIG);
  let w = [];
  for (let pivot = 0; pivot < 1000; pivot++) {
    w = target.map((_, j) => price.reduce((sum, p, i) => sum + p * inverse[i][j], 0));
    const noise = TOUCHING + 1e-14 * w.reduce((sum, x) => sum + Math.abs(x), 0);
    const reduced = columns.map((column, v) => cost[v] - dot(column, w));
    const least = Math.min(...reduced);
    if (least >= -noise) {
      const idle = price.findIndex((p, i) => p === BIG && level[i] <= TOUCHING);
      if (idle < 0) break;
      price[idle] = 0;
      continue;
    }
    const q = reduced.indexOf(least), step = inverse.map((row) => dot(row, columns[q]));
    const r = leaving(level, step);
    if (r < 0) break;
    exchange(inverse, level, step, r);
    price[r] = cost[q];
  }
  return w;
}

function leaving(level, step) {
  let best = -1, least = Infinity;
  for (let i = 0; i < level.length; i++)
    if (step[i] > TOUCHING && level[i] / step[i] < least) [best, least] = [i, level[i] / step[i]];
  return best;
}

function exchange(inverse, level, step, r) {
  const moved = level[r] / step[r];
  inverse[r] = inverse[r].map((x) => x / step[r]);
  for (let i = 0; i < level.length; i++)
    if (i !== r) {
      level[i] = Math.max(0, level[i] - moved * step[i]);
      inverse[i] = inverse[i].map((x, j) => x - step[i] * inverse[r][j]);
    }
  level[r] = moved;
}
