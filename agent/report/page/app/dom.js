// Elements made from values. Text is put in as text and as nothing else, so what a brain wrote cannot become markup.

const SVG = 'http://www.w3.org/2000/svg';
const OF_SVG = new Set(['svg', 'g', 'path', 'circle', 'line', 'rect', 'text']);

// An element: attributes by name, `on` with listeners, `style` with custom properties; children are elements or text.
function h(tag, attributes = {}, ...children) {
  const made = OF_SVG.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === 'on') for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    else if (name === 'style') for (const [property, to] of Object.entries(value)) made.style.setProperty(property, to);
    else if (name === 'value') made.value = value;
    else made.setAttribute(name, value === true ? '' : String(value));
  }
  fill(made, children);
  return made;
}

function fill(into, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false || child === '') continue;
    into.append(child instanceof Node ? child : String(child));
  }
}

function fixed(value, digits = 4) {
  return typeof value === 'number' && Number.isFinite(value) ? value.toFixed(digits) : '-';
}

function signed(value, digits = 4) {
  return typeof value === 'number' && Number.isFinite(value) ? (value > 0 ? '+' : '') + value.toFixed(digits) : '-';
}

function count(value) {
  return typeof value === 'number' && Number.isFinite(value) ? Math.round(value).toLocaleString('en') : '-';
}

function short(value) {
  for (const [size, unit] of [[1e9, 'G'], [1e6, 'M'], [1e3, 'k']])
    if (Math.abs(value) >= size) return Number((value / size).toPrecision(3)) + unit;
  return String(Number(value.toPrecision(3)));
}

function plural(number, word, several = `${word}s`) {
  return `${count(number)} ${number === 1 ? word : several}`;
}

// A table of text. Rows are lists of cells; `marked` is the first cell of the row that is set off; `words`: none is a figure.
function table(header, rows, { marked = '', caption = '', label = caption, words = false } = {}) {
  const figure = (cell) => !words && isFigure(cell);
  return h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': label || header.filter(Boolean).join(', ') },
    h('table', {},
      caption && h('caption', {}, caption),
      h('thead', {}, h('tr', {}, header.map((name, index) => h('th', { scope: 'col', class: rows.length && !figure(rows[0][index]) ? 'words' : null }, name)))),
      h('tbody', {}, rows.map((row) => h('tr', { class: marked && row[0] === marked ? 'found' : null },
        row.map((cell, index) => (index ? h('td', { class: figure(cell) ? null : 'words' }, cell) : h('th', { scope: 'row' }, cell))))))));
}

// Whether a cell lines up with those above it on the right.
function isFigure(cell) {
  return typeof cell === 'string' && /^$|^-$|^[-+]?[\d.,]+%?(( ±| \/| of) [\d.,]+)?( \([^)]*\))*$/.test(cell);
}

function select(id, label, options, value, change) {
  const made = h('select', { id, on: { change: () => change(made.value) } },
    options.map(([name, words]) => h('option', { value: name, selected: name === value }, words)));
  return h('label', { for: id, class: 'field' }, h('span', {}, label), made);
}

function tick(id, label, checked, change, swatch) {
  const box = h('input', { type: 'checkbox', id, checked, on: { change: () => change(box.checked) } });
  return h('label', { for: id, class: 'tick' }, box, swatch, label);
}

function swatch(style) {
  return h('span', { class: `swatch s${style}`, 'aria-hidden': 'true' });
}

function badge(words, kind = '') {
  return h('span', { class: `badge ${kind}` }, words);
}

function say(words) {
  document.getElementById('said').textContent = words;
}

function copyButton(words, text) {
  const button = h('button', { type: 'button', class: 'small', on: { click: async () => {
    const value = text();
    try {
      await navigator.clipboard.writeText(value);
    } catch { // a page from a file may not be let
      const area = h('textarea', {}, value);
      document.body.append(area);
      area.select();
      document.execCommand('copy');
      area.remove();
    }
    button.textContent = 'Copied';
    say('Copied');
    setTimeout(() => { button.textContent = words; }, 1500);
  } } }, words);
  return button;
}

// Any value of JSON as words and lists: for what the page has no form of its own for.
function anything(value, depth = 0) {
  if (value === null || value === undefined) return '-';
  if (typeof value === 'number') return Number.isInteger(value) ? String(value) : fixed(value);
  if (typeof value !== 'object') return String(value);
  if (depth > 6) return JSON.stringify(value);
  if (Array.isArray(value)) {
    if (value.every((one) => typeof one !== 'object' || one === null)) return value.map((one) => anything(one)).join(', ');
    return h('ol', { class: 'any' }, value.map((one) => h('li', {}, anything(one, depth + 1))));
  }
  return h('dl', { class: 'any' }, Object.entries(value).map(([name, one]) => [
    h('dt', {}, name.replaceAll('_', ' ')), h('dd', {}, anything(one, depth + 1))]));
}
