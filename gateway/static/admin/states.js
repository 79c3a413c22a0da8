// The states a node may be in, the worst last.

export const STATES = {
  ok: { word: "Ready", tone: "good" },
  draining: { word: "Draining", tone: "warn" },
  degraded: { word: "Degraded", tone: "warn" },
  deaf: { word: "Deaf", tone: "bad" },
  lost: { word: "Lost", tone: "bad" },
};

const ORDER = Object.keys(STATES);

/** The worst state among nodes. */
export const worst = (nodes) => ORDER[Math.max(0, ...nodes.map((node) => ORDER.indexOf(node.state)))];
