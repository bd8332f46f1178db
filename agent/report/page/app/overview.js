// The first tab: what was decided, why, what it is worth and what it cost; while a run goes on, how far it is.

function overviewTab(run) {
  const told = run.overview;
  const [main, ...others] = told ? told.tables : [];
  return [
    run.state.state === 'finished' ? null : progressPane(run),
    steerPane(run),
    toldSection(run),
    run.gaps.length > 0 && h('section', { class: 'note' }, h('h2', {}, 'What is missing here'), h('ul', {}, run.gaps.map((gap) => h('li', {}, gap)))),
    told && h('section', {}, h('h2', {}, 'What came of it'),
      h('dl', { class: 'verdict' }, told.sentences.map(([name, sentence]) => [h('dt', {}, name), h('dd', {}, sentence)]))),
    main && h('section', {}, tableOf(main, { caption: main.title })),
    whySection(run),
    told && whereSection(told),
    told && h('section', {}, h('h2', {}, 'What it cost'), h('ul', {}, told.cost.map((sentence) => h('li', {}, sentence))),
      h('details', {}, h('summary', {}, 'Every figure of the cost'), table(['', 'spent'], Object.entries(told.spent).map(([name, value]) =>
        [name.replaceAll('_', ' '), value.toLocaleString('en', { maximumFractionDigits: 4 })])))),
    ...others.filter((one) => one.rows.length).map((one) => h('section', {}, h('h2', {}, one.title), tableOf(one, { label: one.title }))),
    learnt(run),
    failures(run),
    notes(run),
    glossary(),
  ];
}

function tableOf(one, named) {
  return [table(one.header, one.rows, { marked: one.marked, ...named }), one.note && h('p', { class: 'soft' }, one.note)];
}

function progressPane(run) {
  const { share, left, evaluations, tokens, minutes } = run.progress;
  const best = run.best;
  const against = [...run.baselines()].filter(([, one]) => best && one.id !== best.id).map(([name, { value }]) =>
    `${name} ${fixed(value)} (${signed(100 * (run.fitness(best) / value - 1), 1)}%)`);
  const { evaluations: most, tokens: budget, fidelity } = run.limits; // which of the two limits the run, as in the terminal
  const limit = most && !(budget && most * fidelity[0] > 10 * budget) ? ` of ${count(most)}` : '';
  const asked = run.asked;
  const last = asked[asked.length - 1];
  const planned = [...run.steps.values()].reverse().find((step) => step.think && step.think.plan);
  return h('section', { class: 'pane', 'aria-label': 'progress' },
    h('progress', { max: 1, value: share === null ? undefined : share, 'aria-label': 'share of the budget that is spent' }),
    h('p', {}, tokens === undefined
      ? (GOING_ON.includes(run.state.state) ? 'The run is being prepared: calibration, dense targets and probes come before the first step.' : 'The run ended before its first step.')
      : `${count(evaluations)}${limit} candidates evaluated, ${count(tokens)}${budget ? ` of ${count(budget)}` : ''} tokens, ${fixed(minutes, 1)} min of search. ${left && run.state.state === 'running' ? `${left[0].toUpperCase()}${left.slice(1)}.` : ''}`),
    best && h('p', {}, 'Best so far: ', candidateLink(best.id), ` (${run.origin(best)}) with fitness ${fixed(run.fitness(best))}`, against.length > 0 && `; to beat: ${against.join(', ')}`, '.'),
    planned && h('p', {}, `Plan of generation ${planned.think.generation} (`, stepLink(planned.number), `): ${planned.think.words}.`),
    last && last !== planned && h('p', {}, 'The brain decided last (', stepLink(last.number), '): ', last.acts.map((act) => act.words).join(', ') || 'its calls are being carried out',
      thoughtOf(last.think) && ['. It thought: ', h('q', {}, thoughtOf(last.think))]),
    last && otherFields(last.think),
    run.steps.size > 0 && [h('h3', {}, 'The last steps'), h('ul', {}, [...run.steps.values()].slice(-6).reverse().map((step) => h('li', {}, stepLink(step.number), `: ${overviewOf(step)}`)))]);
}

function whySection(run) {
  const one = run.best;
  if (!one) return null;
  const compared = run.candidates.filter((each) => typeof each.holdout === 'number').sort((a, b) => a.holdout - b.holdout);
  const seeds = run.candidates.filter((each) => each.proposed_by === 'seed' || each.proposed_by === 'memory').length;
  const made = run.candidates.length - seeds;
  const path = lineOf(run, one);
  return h('section', {}, h('h2', {}, run.overview ? `Why ${one.id}` : `The best so far: ${one.id}`),
    !made && seeds === 1 ? h('p', {}, 'It was taken as it is, without a search.') : h('p', {}, `The search began with ${plural(seeds, 'profile')} from closed forms and earlier runs, made ${count(made)} more in ${plural(run.generations.length, 'generation')}, and kept the best of each generation as parents. `,
      compared.length > 1 && `The best few were then measured on the holdout, text that the search never saw; the least KL there, ${fixed(compared[0].holdout)}, is that of ${compared[0].id}.`,
      run.overview && compared.length > 1 && compared[0].id !== one.id && ` It is a closed form's, and less than a standard error below that of ${one.id}, which is the better one where it was searched. So that stands.`),
    h('p', {}, 'How it came to be: ', path.map((each, index) => [index ? ' → ' : '', candidateLink(each.id), ` (${run.origin(each)}, ${fixed(run.known(each))})`]), '.'),
    compared.length > 1 && table(['candidate', 'proposed by', 'fitness in the search', 'on the holdout'],
      compared.map((each) => [candidateLink(each.id), run.origin(each), fixed(run.known(each)), fixed(each.holdout)])));
}

// From its beginning to the candidate, over the better parent of each.
function lineOf(run, one) {
  const line = [];
  for (let at = one; at && !line.includes(at);) {
    line.unshift(at);
    const parents = at.parents.map((name) => run.byId.get(name)).filter(Boolean);
    at = parents.sort((a, b) => (run.known(a) ?? Infinity) - (run.known(b) ?? Infinity))[0];
  }
  return line;
}

function whereSection(told) {
  const place = told.checkpoint;
  return h('section', {}, h('h2', {}, 'Where it is'), place
    ? [h('p', {}, h('code', {}, place.path), ` (${place.verified})`),
      [['in transformers', place.load], ['in vLLM', place.serve]].map(([name, line]) => line && h('p', { class: 'command' },
        h('code', {}, line), ' ', copyButton('Copy', () => line), h('span', { class: 'soft' }, ` ${name}`)))]
    : h('p', {}, 'No checkpoint was written.'));
}

// What became of the brain's hypotheses; of many the last.
function learnt(run) {
  const found = run.lessons;
  const known = run.remembered || [];
  const before = known.length > 0 && h('section', {}, h('h2', {}, 'What earlier runs had learnt'), lessonTable(known));
  if (!found.length) return before || null;
  const held = found.filter(({ lesson }) => lesson.verdict === 'held').length;
  return h('section', {}, h('h2', {}, 'What was learnt'), h('p', {}, `${held} of ${plural(found.length, 'hypothesis', 'hypotheses')} held.`),
    lessonTable(found.slice(-30).map(({ lesson }) => lesson)), before);
}

const WORDS = {
  'unit': 'the smallest thing that is removed: in attention a key/value head with its query heads, in an MLP a block of channels',
  'profile': 'how many units every layer keeps',
  'candidate': 'a profile that was proposed, by the brain, an operator or a closed form; written c1, c2, ...',
  'fitness': 'the KL divergence from the dense model on the text of the search, in nats a token: how much the answers change; lower is better',
  'brain': 'the model that is asked what to try next, as a rule the very model that is pruned',
  'closed form': 'a profile that follows from a rule or from probes, without a search: what a search has to beat',
  'probe': 'what it costs to cut one place of the dense model alone',
  'holdout': 'text that the search never saw, on which the best few are compared at the end',
  'recalibration': 'a last refit of the kept weights of every layer on its own inputs' };

function glossary() {
  return h('details', {}, h('summary', {}, 'What the words mean'), h('dl', { class: 'facts' }, Object.entries(WORDS).map(([word, meaning]) => [h('dt', {}, word), h('dd', {}, meaning)])));
}

function failures(run) {
  const found = [];
  for (const step of run.steps.values()) {
    if (step.think && step.think.error) found.push([step.number, `the brain failed: ${step.think.error}`]);
    else if (step.think && step.think.fallback) found.push([step.number, 'the tool stood in for the brain']);
    for (const act of step.acts) if (act.error) found.push([step.number, `${act.tool}: ${act.error}`]);
  }
  const warnings = (run.overview && run.overview.warnings) || [];
  if (!found.length && !warnings.length) return null;
  return h('section', {}, h('h2', {}, 'Failures, stand-ins and warnings'), h('ul', {}, warnings.map((one) => h('li', {}, one)),
    found.slice(0, 200).map(([number, words]) => h('li', {}, stepLink(number), `: ${words}`)),
    found.length > 200 && h('li', {}, `${count(found.length - 200)} more are in the trace`)));
}

function notes(run) {
  const said = run.generations.filter((one) => one.note);
  return said.length > 0 && h('section', {}, h('h2', {}, 'Notes of the brain to its future self'),
    h('ul', {}, said.slice(-50).map((one) => h('li', {}, stepLink(one.step), ` after generation ${one.number}: `, h('q', {}, one.note)))));
}

function thoughtOf(think) {
  const reply = (think.replies || []).find((each) => each.thought);
  return reply ? reply.thought : '';
}
