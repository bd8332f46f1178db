// Every turn: what was asked and thought, what was called and answered, how it was judged.

const KNOWN = { // fields of a record that have a place of their own
  think: ['kind', 'at', 'step', 'generation', 'prompt', 'replies', 'input_tokens', 'output_tokens', 'cached_tokens', 'decode_steps', 'forced_tokens', 'seconds', 'illegal', 'fallback', 'error', 'plan', 'told', 'words'],
  act: ['kind', 'at', 'step', 'call', 'tool', 'arguments', 'result', 'repair', 'tokens', 'seconds', 'error', 'words'],
  judge: ['kind', 'at', 'step', 'generation', 'spent', 'best', 'fitness', 'stop'] };

function whoDecided(step) {
  const think = step.think;
  if (!think) return 'tool';
  if (think.fallback) return 'stand-in';
  return isAsked(think) || think.error ? 'brain' : 'tool';
}

function madeBy(step) {
  return step.acts.flatMap((act) => (act.result && Array.isArray(act.result.candidates) ? act.result.candidates : []));
}

function failed(step) {
  return Boolean((step.think && (step.think.error || step.think.fallback || step.think.illegal)) || step.acts.some((act) => act.error));
}

function improved(run, step) {
  return madeBy(step).some((one) => run.byId.has(one.id) && run.change(run.byId.get(one.id)) < 0);
}

function traceTab(run, state) {
  const steps = [...run.steps.values()];
  if (!steps.length) return [h('p', {}, 'There is no step in the trace yet.')];
  state.words = state.words || '';
  state.open = state.open || new Set();
  const target = Number(state.at);
  if (state.at && run.steps.has(target) && state.jumped !== state.at) {
    state.open.add(target);
    state.jumped = state.at;
    afterwards(() => { const row = document.getElementById(`step-${target}`); if (row) { row.scrollIntoView({ block: 'start' }); row.querySelector('summary').focus({ preventScroll: true }); } });
  }
  const tools = [...new Set(steps.flatMap((step) => step.acts.map((act) => act.tool)))];
  const again = () => fillList();
  const list = h('div', { class: 'steps' });
  const told = h('p', { class: 'soft', 'aria-live': 'polite' });
  const box = h('input', { type: 'search', id: 'words', value: state.words, on: { input: () => { state.words = box.value; again(); } } });
  const previous = new Map(); // the last prompt before a step
  let before = null;
  for (const step of steps) {
    previous.set(step.number, before);
    if (step.think && isAsked(step.think)) before = step.think;
  }
  const limits = () => {
    const words = state.words.trim().toLowerCase();
    return steps.filter((step) => (!state.tool || step.acts.some((act) => act.tool === state.tool))
      && (!state.who || whoDecided(step) === state.who)
      && (!state.maker || madeBy(step).some((one) => one.proposed_by === state.maker))
      && (!state.failed || failed(step)) && (!state.improved || improved(run, step))
      && (!words || textOf(step).includes(words)));
  };
  const fillList = () => {
    const found = limits();
    told.textContent = `${plural(found.length, 'step')} of ${count(steps.length)}`;
    list.replaceChildren(...found.map((step) => stepRow(run, step, state, previous.get(step.number))));
  };
  fillList();
  return [
    h('div', { class: 'controls' },
      h('label', { for: 'words', class: 'field' }, h('span', {}, 'Search'), box),
      select('tool', 'Tool', [['', 'any'], ...tools.map((one) => [one, one])], state.tool || '', (value) => { state.tool = value; again(); }),
      select('who', 'Decided by', [['', 'anybody'], ['brain', 'the brain'], ['tool', 'the tool'], ['stand-in', 'a stand-in']], state.who || '', (value) => { state.who = value; again(); }),
      select('by', 'Proposed by', [['', 'anybody'], ...run.makers.map((one) => [one, makerName(one)])], state.maker || '', (value) => { state.maker = value; again(); }),
      tick('only-failed', 'failed', state.failed, (on) => { state.failed = on; again(); }),
      tick('only-improved', 'improved', state.improved, (on) => { state.improved = on; again(); })),
    told, list];
}

const texts = new WeakMap(); // what a step is searched by

function textOf(step) {
  if (!texts.has(step)) texts.set(step, JSON.stringify([step.think, step.acts, step.judge]).toLowerCase());
  return texts.get(step);
}

function stepRow(run, step, state, before) {
  const think = step.think;
  const summary = h('summary', {}, h('span', { class: 'number' }, String(step.number)),
    badge(whoDecided(step), whoDecided(step) === 'brain' ? 'brain' : ''), failed(step) && badge('failed', 'bad'), toldIn(think).length > 0 && badge('told', 'warn'), improved(run, step) && badge('improved', 'good'),
    h('span', { class: 'what' }, overviewOf(step)), think && thoughtOf(think) && h('q', { class: 'soft' }, thoughtOf(think)));
  const row = h('details', { class: 'step', id: `step-${step.number}`, open: state.open.has(step.number), on: { toggle: () => {
    if (row.open) { state.open.add(step.number); build(); } else state.open.delete(step.number);
  } } }, summary);
  const build = () => { if (row.childElementCount === 1) row.append(stepBody(run, step, before)); };
  if (row.open) build();
  return row;
}

function overviewOf(step) {
  const planned = step.think && step.think.plan ? `plan: ${step.think.words}` : '';
  const learnt = step.acts.flatMap(lessonsOf);
  const words = step.acts.slice(0, 3).map((act) => act.words === `called ${act.tool}` ? cameOf(act) : act.words);
  if (step.acts.length > 3) words.push(`and ${step.acts.length - 3} more`);
  const made = madeBy(step).filter((one) => !one.known).map((one) => one.id);
  const after = made.length ? ` → ${made.slice(0, 8).join(' ')}${made.length > 8 ? ' …' : ''}` : '';
  const end = step.judge && step.judge.stop ? `; end: ${step.judge.stop}` : '';
  const lessons = learnt.length ? `; ${learnt.filter((one) => one.verdict === 'held').length} of ${plural(learnt.length, 'hypothesis', 'hypotheses')} held` : '';
  return [planned, words.join(', ') + after + lessons + end].filter(Boolean).join(', ') || (step.think && step.think.error) || 'nothing was called';
}

function cameOf(act) {
  const results = act.result && Array.isArray(act.result.results) ? act.result.results : null;
  if (act.tool !== 'evaluate' || !results) return `called ${act.tool}`;
  const known = results.filter((one) => typeof one.fitness === 'number').sort((a, b) => a.fitness - b.fitness);
  return `measured ${plural(results.length, 'candidate')} on ${count(act.result.fidelity)} tokens${act.arguments && act.arguments.sensitivities ? ' with sensitivities' : ''}${known.length ? `, best ${known[0].id} ${fixed(known[0].fitness)}` : ''}`;
}

function stepBody(run, step, before) {
  return h('div', { class: 'body' },
    h('div', { class: 'row' }, h('a', { href: `#trace/${step.number}` }, 'Link to this step'),
      copyButton('Copy link', () => `${location.href.split('#')[0]}#trace/${step.number}`),
      copyButton('Copy as JSON', () => JSON.stringify([step.think, ...step.acts, step.judge].filter(Boolean).map(({ words, ...record }) => record), null, 1))),
    step.think && thinkCard(step.think, before), step.acts.map((act) => actCard(run, act)), step.judge && judgeCard(step.judge));
}

function thinkCard(think, before) {
  const asked = isAsked(think);
  return h('section', { class: 'turn think' }, h('h3', {}, 'Think'),
    h('p', { class: 'soft' }, asked
      ? `${count(think.input_tokens)} tokens read (${count(think.cached_tokens)} of them cached), ${count(think.output_tokens)} written (${count(think.forced_tokens)} forced by the grammar) in ${count(think.decode_steps)} decode steps, ${fixed(think.seconds, 1)} s; generation ${think.generation}`
      : `No brain was asked: ${think.prompt || 'the tool decided'}; generation ${think.generation}`),
    toldIn(think).map((note) => h('p', {}, 'It was told: ', h('q', {}, note))),
    think.error && h('p', { class: 'bad' }, `Failed: ${think.error}`),
    think.fallback && h('p', { class: 'warn' }, 'The tool stood in for the brain.'),
    think.illegal > 0 && h('p', { class: 'warn' }, `${plural(think.illegal, 'reply', 'replies')} that no rule allowed ${think.illegal === 1 ? 'was' : 'were'} refused.`),
    asked && prompt(think, before),
    (think.replies || []).map((reply, index) => h('div', { class: 'reply' }, h('h4', {}, `Reply ${index}`),
      reply.thought && h('p', {}, 'Thought: ', h('q', {}, reply.thought)), h('pre', {}, reply.raw),
      otherFields(reply, ['raw', 'thought', 'call']))),
    think.plan && planCard(think),
    otherFields(think));
}

// What the brain plans for a generation: in words, its hypotheses, and whatever else it stated.
function planCard(think) {
  const { hypotheses, ...others } = think.plan;
  const stated = Array.isArray(hypotheses) ? hypotheses.filter((one) => one && typeof one === 'object') : [];
  return h('section', { class: 'card' }, h('h4', {}, 'Plan'), h('p', {}, think.words),
    stated.length > 0 && table(['hypothesis', 'it takes from', 'gives to', 'amount', 'expects'], stated.map((one, index) => [String(index + 1),
      ...['take', 'give', 'amount', 'expect'].map((name) => anything(one[name]))]), { caption: 'Hypotheses' }),
    h('p', { class: 'soft' }, Object.entries(others).filter(([, value]) => value !== '').map(([name, value], index) => [index ? ', ' : '', `${name.replaceAll('_', ' ')}: `, anything(value)])));
}

// What became of hypotheses, as figures tell.
function lessonTable(lessons) {
  return table(['verdict', 'hypothesis', 'expected', 'fitness changed by', 'measured with'], lessons.map((one) => [
    badge(anything(one.verdict), { held: 'good', failed: 'bad' }[one.verdict] || ''), `${one.amount} of ${one.take} for ${one.give}${one.model ? ` (in ${one.model})` : ''}`, anything(one.expected),
    `${signed(one.change)} ± ${fixed(one.error)}`, Array.isArray(one.evidence) ? one.evidence.map((name, index) => [index ? ', ' : '', candidateLink(String(name))]) : '-']), { caption: 'Lessons' });
}

// The prompt: what it begins with as the last one did is folded, lines that are new or gone are marked.
function prompt(think, before) {
  const lines = think.prompt.split('\n');
  const last = before ? before.prompt.split('\n') : [];
  let same = 0;
  while (same < lines.length && same < last.length && lines[same] === last[same]) same += 1;
  if (!before) return h('div', {}, h('h4', {}, 'Prompt'), h('pre', { class: 'prompt' }, think.prompt));
  return h('div', {}, h('h4', {}, `Prompt, beside that of step ${before.step}`),
    same > 0 && h('details', {}, h('summary', {}, `${plural(same, 'line')} as before, the system's among them`), h('pre', { class: 'prompt' }, lines.slice(0, same).join('\n'))),
    h('pre', { class: 'prompt' }, differences(last.slice(same), lines.slice(same)).map(([mark, line]) =>
      h('span', { class: mark === '+' ? 'new' : mark === '-' ? 'gone' : 'old' }, `${mark} ${line}\n`))));
}

// Lines of two texts with "+", "-" or " ": a longest common subsequence, as far as that is cheap.
function differences(before, now) {
  if (before.length * now.length > 400000) return [...before.map((line) => ['-', line]), ...now.map((line) => ['+', line])];
  const best = Array.from({ length: before.length + 1 }, () => new Uint32Array(now.length + 1));
  for (let i = before.length - 1; i >= 0; i -= 1)
    for (let j = now.length - 1; j >= 0; j -= 1)
      best[i][j] = before[i] === now[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
  const found = [];
  let i = 0;
  let j = 0;
  while (i < before.length || j < now.length) {
    if (i < before.length && j < now.length && before[i] === now[j]) { found.push([' ', now[j]]); i += 1; j += 1; }
    else if (j >= now.length || (i < before.length && best[i + 1][j] >= best[i][j + 1])) { found.push(['-', before[i]]); i += 1; }
    else { found.push(['+', now[j]]); j += 1; }
  }
  return found;
}

function actCard(run, act) {
  const made = act.result && Array.isArray(act.result.candidates) ? act.result.candidates : [];
  return h('section', { class: 'turn act' }, h('h3', {}, `Act: ${act.tool}`),
    h('p', { class: 'soft' }, `call ${act.call}, ${fixed(act.seconds, 2)} s, ${count(act.tokens)} tokens measured${act.repair ? `, repair changed ${plural(act.repair, 'unit')}` : ''}`),
    h('p', {}, cameOf(act) === `called ${act.tool}` ? act.words : cameOf(act), made.length > 0 && [' → ', made.map((one, index) => [index ? ', ' : '', candidateLink(one.id), one.known && ' (known already)'])]),
    act.error && h('p', { class: 'bad' }, `Error: ${act.error}`),
    act.tool === 'evaluate' && act.result && Array.isArray(act.result.results) && measuredTable(act.result.results),
    lessonsOf(act).length > 0 && [h('h4', {}, 'What was learnt'), lessonTable(lessonsOf(act))],
    act.tool === 'record_population' && act.result && act.result.note && h('p', {}, 'Note to itself: ', h('q', {}, act.result.note)),
    h('details', {}, h('summary', {}, 'Call and answer'), h('pre', {}, JSON.stringify(act.arguments, null, 1)), h('pre', {}, JSON.stringify(act.result, null, 1))),
    otherFields(act));
}

function measuredTable(results) {
  return table(['candidate', 'fitness', 'perplexity', 'change from parents'], [...results].sort((a, b) => (a.rank ?? 0) - (b.rank ?? 0)).map((one) => [
    candidateLink(one.id), one.status === 'failed' ? `failed: ${one.error}` : fixed(one.fitness), fixed(one.perplexity, 2),
    Array.isArray(one.change) ? one.change.map((each) => `${signed(each.mean)} from ${each.parent}`).join(', ') : '-']), { caption: 'What was measured' });
}

function judgeCard(judge) {
  const spent = judge.spent || {};
  return h('section', { class: 'turn judge' }, h('h3', {}, 'Judge'),
    h('p', {}, `Spent so far: ${count(spent.evaluations)} evaluations, ${count(spent.tokens)} tokens measured, ${count(spent.brain_tokens)} of the brain, ${fixed(spent.minutes, 2)} min. `,
      judge.best ? ['Best: ', candidateLink(judge.best), ` ${fixed(judge.fitness)}. `] : 'No generation is closed yet. ', judge.stop ? h('strong', {}, `The search ends: ${judge.stop}.`) : 'It goes on.'),
    otherFields(judge));
}

// What a record has besides: plans, hypotheses, lessons, and whatever later versions write.
function otherFields(record, known = KNOWN[record.kind] || []) {
  const others = Object.entries(record).filter(([name, value]) => !known.includes(name) && value !== null && value !== '' && !(Array.isArray(value) && !value.length));
  return others.map(([name, value]) => h('div', { class: 'card other' }, h('h4', {}, name.replaceAll('_', ' ')), h('div', {}, anything(value))));
}
