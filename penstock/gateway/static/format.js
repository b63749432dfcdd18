// Numbers, times and words as the pages show them.

const whole = new Intl.NumberFormat('en-US');

export const NONE = '–';

export const count = (n) => (n == null ? NONE : whole.format(n));

// A number with at most three digits that count, but never less than its whole part.
export function short(n, digits = 3) {
  if (n == null) return NONE;
  return Math.abs(n) >= 10 ** (digits - 1) ? whole.format(Math.round(n)) : String(Number(n.toPrecision(digits)));
}

export function millis(ms) {
  if (ms == null) return NONE;
  return ms >= 10_000 ? `${(ms / 1000).toFixed(1)} s` : `${short(ms)} ms`;
}

export const seconds = (s) => (s == null ? NONE : s < 1 ? millis(s * 1000) : span(s));

// A span of time in its largest unit, and the next one where that helps.
export function span(s) {
  if (s == null) return NONE;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min`;
  if (s < 172_800) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d`;
}

export const clock = (t) => new Date(t * 1000).toTimeString().slice(0, 8);

export const bytes = (n) =>
  n == null ? NONE : n < 10_000 ? `${count(n)} B` : n < 1e6 ? `${short(n / 1e3)} KB` : `${short(n / 1e6)} MB`;

export const money = (n) => (n == null ? NONE : `$${n.toFixed(2)}`);

// The states: a word, and a sign that tells them apart without colour.
const SIGNS = {
  idle: ['○', 'quiet'], buffering: ['◔', 'quiet'], streaming: ['●', 'ok'], rate_limited: ['◐', 'warn'],
  paused: ['‖', 'warn'], error: ['▲', 'bad'], completed: ['✓', 'quiet'], cancelled: ['×', 'quiet'],
  failed: ['✕', 'bad'], ended: ['■', 'quiet'],
  closed: ['●', 'ok'], half_open: ['◐', 'warn'], 'half-open': ['◐', 'warn'], open: ['▲', 'bad'],
};
export const sign = (state) => SIGNS[state] ?? ['·', 'quiet'];
export const words = (name) => String(name).replaceAll('_', ' ');
