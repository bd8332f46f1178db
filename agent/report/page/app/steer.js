// Talking to a run that goes on: buttons and a box, where the address of the page brought the server's token.

const TOKEN = 'self-pruner-token';
const GOING_ON = ['running', 'paused', 'stopping'];
let mayWrite = false;
let steering = null; // the buttons and the box, which stay the same when the tab is drawn anew: somebody may be typing

// Takes the token out of the address, and asks whether it is this server's; resolves to whether it is.
async function takeToken() {
  const brought = new URLSearchParams(location.search).get('token');
  if (brought !== null) {
    localStorage.setItem(TOKEN, brought);
    history.replaceState(null, '', location.pathname + location.hash);
  }
  const token = localStorage.getItem(TOKEN);
  if (!token) return false;
  const answer = await fetch('/token', { headers: { 'x-token': token }, cache: 'no-store' });
  if (answer.status === 403) localStorage.removeItem(TOKEN);
  mayWrite = answer.ok;
  return mayWrite;
}

async function sayTo(what) {
  const answer = await fetch(given.live.data.replace(/data\.json$/, 'say'), { method: 'POST', body: JSON.stringify(what),
    headers: { 'x-token': localStorage.getItem(TOKEN) || '', 'content-type': 'application/json' } });
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error);
  return content.said;
}

function steerPane(run) {
  const { state } = run.state;
  if (!mayWrite || !GOING_ON.includes(state)) return null;
  steering = steering || makeSteering();
  steering.pause.hidden = state !== 'running';
  steering.goOn.hidden = state !== 'paused';
  steering.stop.hidden = state === 'stopping';
  steering.form.hidden = !run.asks_brain || state === 'stopping';
  return steering.pane;
}

function makeSteering() {
  const told = h('p', { class: 'soft', role: 'status' });
  const attempt = async (what, done = () => {}) => {
    told.className = 'soft';
    try {
      const said = await sayTo(what);
      told.textContent = what.tell ? said : ''; // what a request came to is said beside the run's name
      done();
    } catch (error) {
      told.className = 'bad';
      told.textContent = error instanceof TypeError ? 'The server is gone: nothing was said.' : error.message;
    }
  };
  const button = (id, words, request, title) => h('button', { type: 'button', id, title, on: { click: () => attempt({ request }) } }, words);
  const made = {
    pause: button('pause', 'Pause', 'pause', 'It waits before its next turn'),
    goOn: button('go-on', 'Go on', 'go on', 'It goes on with its next turn'),
    stop: button('stop', 'Stop', 'stop', 'It ends after the step in hand; main.py resume goes on with it') };
  const box = h('input', { id: 'note', maxlength: 240, autocomplete: 'off', placeholder: 'keep layer 0 whole' });
  made.form = h('form', { class: 'tell', on: { submit: (event) => {
    event.preventDefault();
    attempt({ tell: box.value }, () => { box.value = ''; });
  } } }, h('label', { for: 'note', class: 'field' }, h('span', {}, 'Tell its brain'), box), h('button', { id: 'tell' }, 'Tell'));
  made.pane = h('section', { class: 'steer', 'aria-label': 'talk to the run' },
    h('div', { class: 'row' }, made.pause, made.goOn, made.stop, made.form), told);
  return made;
}

// What the run was told, and at which step its brain read it first.
function toldSection(run) {
  if (!run.notes.length) return null;
  const read = [...run.steps.values()].flatMap((step) => toldIn(step.think).map((note) => [note, step.number]));
  return h('section', {}, h('h2', {}, 'What it was told'), h('ul', {}, run.notes.map((note) => {
    const found = read.findIndex(([text]) => text === note.text);
    const [[, number]] = found < 0 ? [[]] : read.splice(found, 1);
    return h('li', {}, h('q', {}, note.text), ' ', h('span', { class: 'soft' }, note.created.slice(0, 16).replace('T', ' '), ', ',
      number === undefined ? 'not read yet' : ['read at ', stepLink(number)]));
  })));
}

function toldIn(think) {
  return think && Array.isArray(think.told) ? think.told.map(String) : [];
}
