// Solids to be drawn: the faces of the convex hull of points in space, and a camera to look at them.

import { distinct, polygon } from "explore/geometry";

const FLAT = 1e-7;
const minus = (a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const inner = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const unit = (a) => {
  const size = Math.hypot(...a);
  return size > 0 ? a.map((x) => x / size) : a;
};

// Faces of the hull as lists of corners with their outward normals, by wrapping: from the edge of one face to the next.
// Points should be of size one. Flat sets are one face with two sides.
export function faces(points) {
  const cloud = distinct(points);
  if (cloud.length < 3) return [];
  const centre = [0, 1, 2].map((i) => cloud.reduce((sum, p) => sum + p[i], 0) / cloud.length);
  const first = cloud.reduce((p, q) => (q[0] - p[0] || q[2] - p[2] || q[1] - p[1]) < 0 ? q : p);
  const second = wrapped(cloud, first, [first[0], first[1] + 1, first[2]]) ?? cloud.find((p) => p !== first);
  const third = wrapped(cloud, first, second);
  if (!third) return [];
  const found = new Map(), open = [[first, second, third]];
  while (open.length && found.size < 2000) {
    const face = facing(cloud, centre, ...open.pop());
    const key = face.corners.map((p) => cloud.indexOf(p)).sort((a, b) => a - b).join();
    if (found.has(key)) continue;
    found.set(key, face);
    face.corners.forEach((p, i) => {
      const q = face.corners[(i + 1) % face.corners.length], next = wrapped(cloud, q, p, face);
      if (next) open.push([q, p, next]);
    });
  }
  return [...found.values()];
}

// A point such that all others are on one side of the plane through it and the edge from p to q; with the face on
// this side of the edge given, not in its plane.
function wrapped(cloud, p, q, face) {
  const along = unit(minus(q, p));
  let best = null;
  for (const s of cloud) {
    const away = minus(s, p), off = cross(along, away);
    if (Math.hypot(...off) < FLAT || (face && Math.abs(inner(face.normal, away)) < FLAT)) continue;
    if (!best || inner(cross(along, unit(minus(best, p))), away) > FLAT) best = s;
  }
  return best;
}

function facing(cloud, centre, p, q, r) {
  let normal = unit(cross(minus(q, p), minus(r, p)));
  if (inner(normal, minus(centre, p)) > 0) normal = normal.map((x) => -x);
  const x = unit(minus(q, p)), y = cross(normal, x);
  const level = cloud.filter((s) => Math.abs(inner(normal, minus(s, p))) < FLAT);
  const shadows = new Map(level.map((s) => [[inner(x, minus(s, p)), inner(y, minus(s, p))], s]));
  const corners = polygon([...shadows.keys()]).map((shadow) => shadows.get(shadow));
  return { corners, normal };
}

// Looks at the cube [-1, 1]^3 from outside, the third coordinate up.
export class Camera {
  constructor(yaw = -0.95, pitch = 0.36) {
    Object.assign(this, { yaw, pitch, home: [yaw, pitch] });
  }
  turn(right, up) {
    this.yaw += right;
    this.pitch = Math.min(1.45, Math.max(-0.4, this.pitch + up));
  }
  reset() {
    [this.yaw, this.pitch] = this.home;
  }
  // Right, up and towards the eye.
  view([x, y, z]) {
    const c = Math.cos(this.yaw), s = Math.sin(this.yaw), right = c * x - s * y, deep = s * x + c * y;
    const cp = Math.cos(this.pitch), sp = Math.sin(this.pitch);
    return [right, cp * z + sp * deep, sp * z - cp * deep];
  }
  back([right, up, near]) {
    const cp = Math.cos(this.pitch), sp = Math.sin(this.pitch);
    const z = cp * up + sp * near, deep = sp * up - cp * near, c = Math.cos(this.yaw), s = Math.sin(this.yaw);
    return [c * right + s * deep, -s * right + c * deep, z];
  }
}
