// The states a node may be in, the worst last.

export const STATES = {
  ok: { word: "Ready", tone: "good" },
  starting: { word: "Starting", tone: "warn" },
  draining: { word: "Draining", tone: "warn" },
  degraded: { word: "Degraded", tone: "warn" },
  silent: { word: "Silent", tone: "bad" },
  deaf: { word: "Deaf", tone: "bad" },
  unregistered: { word: "Not registered", tone: "bad" },
  crashed: { word: "Crashed", tone: "bad" },
  lost: { word: "Lost", tone: "bad" },
};

const ORDER = Object.keys(STATES);

/** What is known of a state; of one that is not known, nothing good. */
export const stateOf = (state) => STATES[state] ?? { word: state, tone: "bad" };

/** The worst state among nodes; one that is not known is worse than all. */
export const worst = (nodes) =>
  nodes.find((node) => !ORDER.includes(node.state))?.state ??
  ORDER[Math.max(0, ...nodes.map((node) => ORDER.indexOf(node.state)))];
