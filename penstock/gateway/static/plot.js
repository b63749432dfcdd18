// A plot over time by uPlot. A canvas has no words, so that the newest values stand beside it as text.

import { html, useEffect, useRef } from './parts.js';

/* global uPlot */
const dark = matchMedia('(prefers-color-scheme: dark)');

// Colours as the canvas takes them: it knows neither custom properties nor light-dark().
function colours() {
  const probe = document.createElement('i');
  document.body.append(probe);
  const resolve = (name) => { probe.style.color = `var(${name})`; return getComputedStyle(probe).color; };
  const found = { text: resolve('--muted'), line: resolve('--line'), one: resolve('--accent'), two: resolve('--second') };
  probe.remove();
  return found;
}

// A time of day, as exact as the length of the axis asks for.
const at = (t, length) => (length < 10 ? `${new Date(t * 1000).toTimeString().slice(3, 8)}.${Math.floor((t % 1) * 10)}` : new Date(t * 1000).toTimeString().slice(0, length > 300 ? 5 : 8));

// `lines`: [{label, dash}], `data`: [times, values…]; `from`, `to`: the ends of the time axis. Points without lines with `dots`.
export function Plot({ title, lines, data, from, to, dots = false, format, height = 120, now }) {
  const box = useRef(), plot = useRef();
  useEffect(() => {
    let width = 0;
    const draw = () => {
      plot.current?.destroy();
      const found = colours();
      const strokes = [found.one, found.two];
      const axis = { stroke: found.text, grid: { stroke: found.line, width: 1 }, ticks: { stroke: found.line, width: 1 }, font: '11px system-ui, sans-serif' };
      width = box.current.clientWidth;
      plot.current = new uPlot({
        width, height, legend: { show: false }, cursor: { show: false }, padding: [8, 28, 0, 0],
        scales: { x: { time: true, range: () => box.current.range }, y: { range: (u, low, high) => [0, Math.max(1, (high ?? 0) * 1.1)] } },
        axes: [{ ...axis, size: 24, space: 60, values: (u, times) => times.map((t) => at(t, box.current.range[1] - box.current.range[0])) },
          { ...axis, size: 58, space: 24, values: (u, values) => values.map((v) => format(v)) }],
        series: [{}, ...lines.map((line, at) => ({
          stroke: strokes[at], width: dots ? 0 : 1.75, dash: line.dash, spanGaps: false, paths: dots ? () => null : undefined,
          points: { show: dots, size: 4, fill: strokes[at], stroke: strokes[at] },
          fill: at === 0 && !dots ? strokes[0].replace('rgb(', 'rgba(').replace(')', ', .12)') : undefined,
        }))],
      }, box.current.data, box.current);
    };
    box.current.data = data;
    box.current.range = [from, to];
    draw();
    const observer = new ResizeObserver(() => { if (box.current && box.current.clientWidth !== width) draw(); });
    observer.observe(box.current);
    dark.addEventListener('change', draw);
    return () => { observer.disconnect(); dark.removeEventListener('change', draw); plot.current?.destroy(); };
  }, []);
  useEffect(() => {
    box.current.data = data;
    box.current.range = [from, to];
    plot.current?.setData(data);
  }, [data, from, to]);
  return html`<figure class="plot"><figcaption><span>${title}</span><span class="now">${lines.map((line, at) => html`<span key=${line.label} class=${`key k${at}`}><span class="stroke" aria-hidden="true"></span>${line.label} <b>${now[at]}</b></span>`)}</span></figcaption>
    <div class="canvas" ref=${box} style=${{ height: `${height}px` }} role="img" aria-label=${`${title}: ${lines.map((line, at) => `${line.label} ${now[at]}`).join(', ')}`}></div></figure>`;
}
