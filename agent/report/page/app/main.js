// Tabs, the address, and what is new: the page of a run or a comparison that is in it, or that a server is asked for.

const given = JSON.parse(document.getElementById('data').textContent);
const ofComparison = Boolean(given.live ? given.live.comparison : given.comparison);
const TABS = ofComparison
  ? [['overview', 'Overview', verdictTab], ['curves', 'Curves', curvesTab], ['brain', 'Worth of the brain', brainTab], ['profiles', 'Profiles', profilesTab],
    ['runs', 'Runs', runsTab], ['prompts', 'Prompts', differencesTab], ['reproduce', 'Reproduce', commandTab]]
  : [['overview', 'Overview', overviewTab], ['search', 'Search', searchTab], ['profile', 'Profile', profileTab], ['lineage', 'Lineage', lineageTab],
    ['trace', 'Trace', traceTab], ['prompts', 'Prompts', promptsTab], ['reproduce', 'Reproduce', reproduceTab]];
const CHARTS = ['search', 'curves']; // tabs whose charts follow the window and the colours
const states = Object.fromEntries(TABS.map(([name]) => [name, {}])); // what was chosen in each tab
const head = document.getElementById('head');
const main = document.getElementById('main');
let queue = []; // what waits until the tab is on the page
let present = null; // the run or the comparison that is shown
let shown = null; // the address it was drawn for

function afterwards(act) {
  queue.push(act);
}

// Drawn at once: a key that follows before the browser says that the address has changed must find what it goes on from.
function go(address) {
  location.hash = address;
  show(present);
}

function tabNow() {
  const [name, at] = decodeURIComponent(location.hash.slice(1)).split('/');
  const tab = TABS.find((one) => one[0] === name) || TABS[0];
  if (at !== undefined) states[tab[0]].at = at;
  return tab;
}

// The tab that the address names, drawn anew; what had the keyboard keeps it.
function show(run) {
  shown = location.hash;
  const [name, , make] = tabNow();
  const focused = document.activeElement && document.activeElement.id;
  const frame = document.getElementById('graph');
  const scrolled = frame ? [frame.scrollLeft, frame.scrollTop] : null;
  const panel = document.getElementById('panel');
  queue = [];
  let content;
  try {
    content = make(run, states[name]);
  } catch (error) { // a record that holds what no version writes
    console.error(error);
    content = h('p', { class: 'note' }, `This part cannot be shown: ${error.message}`);
  }
  panel.replaceChildren();
  fill(panel, [content]);
  panel.setAttribute('aria-labelledby', `tab-${name}`);
  panel.className = name;
  for (const [other] of TABS) {
    const tab = document.getElementById(`tab-${other}`);
    tab.setAttribute('aria-selected', String(other === name));
    tab.tabIndex = other === name ? 0 : -1;
  }
  const now = document.getElementById('graph');
  if (now && scrolled) [now.scrollLeft, now.scrollTop] = scrolled;
  for (const act of queue) act();
  const again = focused && document.getElementById(focused);
  if (again && document.activeElement !== again) again.focus({ preventScroll: true });
}

function tabList() {
  const tabs = TABS.map(([name, words]) => h('a', { id: `tab-${name}`, role: 'tab', href: `#${name}`, 'aria-controls': 'panel', tabindex: -1 }, words));
  return h('div', { role: 'tablist', 'aria-label': 'Parts of the page', on: { keydown: (event) => {
    const at = tabs.indexOf(document.activeElement);
    const to = { ArrowRight: (at + 1) % tabs.length, ArrowLeft: (at - 1 + tabs.length) % tabs.length, Home: 0, End: tabs.length - 1, ' ': at }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    tabs[to].focus();
    go(TABS[to][0]);
  } } }, tabs);
}

function heading(run) {
  const name = ofComparison ? run.comparison : run.run;
  document.title = `Self-Pruner: ${name}`;
  head.replaceChildren();
  if (ofComparison) {
    const state = !run.missing.length ? 'finished' : run.going.some((one) => GOING_ON.includes(one.state)) ? 'running' : 'unfinished';
    fill(head, [given.live && !given.live.only && h('a', { href: '/', class: 'small' }, 'All runs'), h('div', { class: 'row' }, h('h1', {}, name), stateBadge(state)),
      h('p', { class: 'soft' }, [given.live && given.live.name, `${count(run.finished)} of ${plural(run.planned, 'run')}`].filter(Boolean).join(' · '))]);
    return;
  }
  fill(head, [given.live && !given.live.only && h('a', { href: '/', class: 'small' }, 'All runs'), h('div', { class: 'row' }, h('h1', {}, name), stateBadge(run.state.state)),
    h('p', { class: 'soft' }, [run.model, run.budget, `decided by ${run.arm}`, run.state.reason].filter(Boolean).join(' · '))]);
}

function read(content) {
  return ofComparison ? new Comparison(content) : new Run(content);
}

function showRun(run) {
  present = run;
  heading(run);
  if (!document.getElementById('panel')) main.replaceChildren(tabList(), h('div', { id: 'panel', role: 'tabpanel', tabindex: -1 }));
  show(run);
}

function trouble(words) {
  let place = document.getElementById('trouble');
  if (!place && words) head.after(place = h('p', { id: 'trouble', class: 'note', role: 'alert' }));
  if (place) { place.textContent = words; place.hidden = !words; }
}

// What is new is drawn once a button that is pressed is let go: a press is lost with what it began on.
let pressed = false;
let waits = null;

function whenLetGo(draw) {
  waits = draw;
  if (!pressed) drawWaiting();
}

function drawWaiting() {
  if (pressed || !waits) return;
  const draw = waits;
  waits = null;
  draw();
}

function letGo() {
  pressed = false;
  setTimeout(drawWaiting); // after the click that this makes
}

// The server says when something is new; then it is asked for, of the trace only what is not known.
function follow(live, showNew) {
  let document = null;
  let busy = false;
  let waiting = false;
  const ask = async () => {
    if (busy) { waiting = true; return; }
    busy = true;
    try {
      const known = document && document.trace ? document.trace_end : 0;
      const answer = await fetch(`${live.data}?from=${known}`, { cache: 'no-store' });
      const content = await answer.json();
      if (!answer.ok) throw new Error(content.error);
      if (content.trace && content.trace_from > 0) content.trace = merged(document.trace, content.trace);
      document = content;
      trouble('');
      whenLetGo(() => showNew(content));
    } catch (error) {
      trouble(error instanceof TypeError ? 'The server is gone: what is shown is what was known last. It is asked again every few seconds.' : error.message);
    }
    busy = false;
    if (waiting) { waiting = false; ask(); }
  };
  // A browser has six connections to a server for all its tabs: one that is not looked at holds none, and asks once.
  let events = null;
  const listen = () => {
    if (events) events.close();
    events = null;
    if (window.document.hidden) return;
    events = new EventSource(live.events); // which says at once that something is new
    events.addEventListener('message', ask);
    events.addEventListener('error', () => trouble('The server is gone: what is shown is what was known last. It is asked again every few seconds.'));
  };
  window.document.addEventListener('visibilitychange', listen);
  if (window.document.hidden) ask();
  listen();
}

window.addEventListener('pointerdown', () => { pressed = true; }, true);
for (const end of ['pointerup', 'pointercancel']) window.addEventListener(end, letGo, true);
window.addEventListener('pointermove', (event) => { if (pressed && !event.buttons) letGo(); }, true); // let go elsewhere
if (given.live) takeToken().then((may) => may && present && show(present), () => {}); // a server that is gone is said below
if (given.live && given.live.list) {
  head.replaceChildren(h('h1', {}, 'Runs'), h('p', { class: 'soft' }, given.live.folder));
  follow(given.live, (list) => { main.replaceChildren(); fill(main, [runsPage(list)]); });
} else {
  if (given.live) {
    head.replaceChildren(h('h1', {}, given.live.name));
    follow(given.live, (content) => showRun(read(content)));
  } else showRun(read(given));
  window.addEventListener('hashchange', () => present && location.hash !== shown && show(present));
  const redraw = () => present && CHARTS.includes(tabNow()[0]) && show(present);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
  let timer = 0;
  window.addEventListener('resize', () => { clearTimeout(timer); timer = setTimeout(redraw, 150); });
}
