// Charts of the last fifteen minutes, drawn by uPlot.

import { $, $$, h, say } from "./dom.js";
import { seconds, short } from "./format.js";
import uPlot from "./uplot/uplot.mjs";

const MINUTES = 15;
const LEAST = 2;
const STEP = 3;
const POINTS = (MINUTES * 60) / STEP;

const CHARTS = {
  connections: { lines: [["connections", "open", "--chart-1"]], write: short, least: 4 },
  messages: {
    lines: [
      ["received", "in", "--chart-1"],
      ["delivered", "out", "--chart-2"],
    ],
    write: short,
    least: 4,
  },
  latency: {
    lines: [
      ["p50", "p50", "--chart-1"],
      ["p99", "p99", "--chart-3"],
    ],
    write: seconds,
    least: 0.001,
  },
};

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Samples by their time; a time without one is a hole in every line. */
const samples = new Map();
const drawn = [];

/** A cluster that has just begun is not drawn as an almost empty quarter of an hour. */
const oldest = () => Math.min(Math.max(0, ...samples.keys()) - LEAST * 60, ...samples.keys());

function columns(names) {
  const newest = Math.max(0, ...samples.keys());
  const times = Array.from({ length: POINTS }, (_, i) => newest - (POINTS - 1 - i) * STEP);
  return [times, ...names.map((name) => times.map((time) => samples.get(time)?.[name] ?? null))];
}

function options(chart, width, height) {
  const axis = {
    stroke: colour("--soft"),
    grid: { stroke: colour("--grid"), width: 1 },
    ticks: { show: false },
    font: `11px ${getComputedStyle(document.body).fontFamily}`,
  };
  return {
    width,
    height,
    legend: { show: false },
    cursor: { y: false, points: { size: 6 }, drag: { setScale: false } },
    padding: [8, 18, 0, 0],
    scales: {
      x: { range: (_, __, newest) => [Math.max(newest - MINUTES * 60, oldest() - STEP * 5), newest] },
      y: { range: (_, __, most) => [0, Math.max(most ?? 0, chart.least) * 1.1] },
    },
    axes: [
      { ...axis, size: 26, space: 56, values: (_, times) => times.map(minute) },
      { ...axis, size: 52, space: 36, values: (_, values) => values.map((value) => chart.write(value)) },
    ],
    series: [
      {},
      ...chart.lines.map(([, label, name], i) => ({
        label,
        stroke: colour(name),
        width: 1.75,
        fill: i === 0 ? `color-mix(in srgb, ${colour(name)} 10%, transparent)` : undefined,
        points: { show: false },
      })),
    ],
    hooks: { setCursor: [(plot) => legend(chart, plot.cursor.idx)] },
  };
}

const minute = (time) =>
  new Date(time * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });

/** Beside each name, the value under the pointer, or the latest. */
function legend(chart, index) {
  const data = chart.plot.data;
  chart.values.forEach((target, i) => {
    const value = data[i + 1][index ?? POINTS - 1];
    say(target, value === null || value === undefined ? "–" : chart.write(value));
  });
}

function make(box) {
  const chart = { ...CHARTS[box.dataset.chart], box };
  const list = $(`[data-legend="${box.dataset.chart}"]`);
  chart.values = chart.lines.map(() => h("b", {}, "–"));
  list.replaceChildren(
    ...chart.lines.map(([, label], i) =>
      h(
        "span",
        { class: `line line-${box.dataset.chart}-${i}` },
        h("i", { "aria-hidden": "true" }),
        label,
        chart.values[i],
      ),
    ),
  );
  draw(chart);
  new ResizeObserver(() => chart.plot.setSize({ width: box.clientWidth, height: box.clientHeight })).observe(
    box,
  );
  return chart;
}

function draw(chart) {
  chart.plot?.destroy();
  const data = columns(chart.lines.map(([key]) => key));
  chart.plot = new uPlot(options(chart, chart.box.clientWidth, chart.box.clientHeight), data, chart.box);
  chart.box.dataset.points = String(samples.size);
}

/** Add samples, oldest first, and draw them. */
export function addSamples(series) {
  for (const { at, ...values } of series) samples.set(at, values);
  const newest = Math.max(0, ...samples.keys());
  for (const at of samples.keys()) if (at < newest - MINUTES * 60) samples.delete(at);
  if (!drawn.length) drawn.push(...$$("[data-chart]").map(make));
  for (const chart of drawn) {
    chart.plot.setData(columns(chart.lines.map(([key]) => key)));
    chart.box.dataset.points = String(samples.size);
    legend(chart, chart.plot.cursor.idx);
  }
}

addEventListener("theme", () => drawn.forEach(draw));
