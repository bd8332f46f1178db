// What is known of a run, looked up by the names that the tabs need; made anew from every document.

const MAKERS = { // who proposes, in the order of colours: those behind the ninth are of arms of their own
  brain: 'the brain', chance: 'chance, among the brain\'s legal calls', switch: 'the operator that switches levels',
  cross: 'the operator that crosses', model: 'a trust-region step on sensitivities', seed: 'a closed form',
  memory: 'an earlier run', blend: 'the operator that blends two parents', fallback: 'the tool, at random',
  rule: 'the rule that states hypotheses in the brain\'s place', cma: 'CMA-ES', random: 'the random operator' };
const STYLES = Object.fromEntries(Object.keys(MAKERS).map((name, index) => [name, index % 9]));

// What a proposer is called on the page; the trace and the memory have shorter words.
function makerName(maker) {
  return { seed: 'closed form', memory: 'earlier run' }[maker] || maker;
}

function styleOf(maker) {
  return STYLES[maker] ?? 7;
}

class Run {
  constructor(document) {
    Object.assign(this, document);
    this.byId = new Map(this.candidates.map((one) => [one.id, one]));
    this.fidelities = (this.limits.fidelity || []).map(String);
    this.last = this.fidelities[this.fidelities.length - 1];
    this.makers = [...new Set(this.candidates.map((one) => one.proposed_by))];
    this.steps = stepsOf(this.trace);
    this.costs = new Map(); // tokens spent by the end of a step
    this.measuredAt = new Map(); // step by candidate and fidelity
    let spent = 0;
    for (const step of this.steps.values()) {
      const judged = step.judge && step.judge.spent;
      if (judged) spent = (judged.tokens || 0) + (judged.brain_tokens || 0);
      this.costs.set(step.number, spent);
      for (const act of step.acts) {
        if (act.tool !== 'evaluate' || !act.result || !Array.isArray(act.result.results)) continue;
        for (const one of act.result.results) {
          const key = `${one.id} ${act.result.fidelity}`;
          if (!this.measuredAt.has(key)) this.measuredAt.set(key, step.number);
        }
      }
    }
    this.total = spent;
    this.children = new Map();
    for (const one of this.candidates)
      for (const parent of one.parents) {
        if (!this.children.has(parent)) this.children.set(parent, []);
        this.children.get(parent).push(one.id);
      }
    this.survivors = new Set(this.generations.flatMap((one) => one.survivors));
    // The candidate that was found; before that, the best so far, also of a generation that is still open.
    this.best = this.overview ? this.byId.get(this.overview.chosen)
      : this.candidates.filter((one) => this.fitness(one) !== undefined)
        .reduce((best, one) => (best && this.fitness(best) <= this.fitness(one) ? best : one), undefined);
  }

  fitness(one, fidelity = this.last) {
    return one ? one.scores[fidelity] : undefined;
  }

  // Fitness at the most tokens that it was measured on.
  known(one) {
    for (const fidelity of [...this.fidelities].reverse()) if (one.scores[fidelity] !== undefined) return one.scores[fidelity];
    return undefined;
  }

  // Fitness less that of the better parent, at the most tokens on which all were measured; below zero it improved.
  change(one) {
    const parents = one.parents.map((name) => this.byId.get(name)).filter(Boolean);
    if (!parents.length) return undefined;
    for (const fidelity of [...this.fidelities].reverse()) {
      const known = parents.map((parent) => parent.scores[fidelity]);
      if (one.scores[fidelity] !== undefined && known.every((value) => value !== undefined))
        return one.scores[fidelity] - Math.min(...known);
    }
    return undefined;
  }

  // Tokens that were spent when it was measured; when it was made where the trace does not say.
  costOf(one, fidelity) {
    return this.costs.get(this.measuredAt.get(`${one.id} ${fidelity}`)) ?? this.costs.get(one.step) ?? (one.step > 0 ? this.total : 0);
  }

  // Levels to beat: the best of each kind of closed form and of earlier runs.
  baselines(fidelity = this.last) {
    const best = new Map();
    for (const one of this.candidates) {
      if (one.proposed_by !== 'seed' && one.proposed_by !== 'memory') continue;
      const name = one.proposed_by === 'memory' ? 'earlier run' : one.detail.split(':')[0];
      const value = one.scores[fidelity];
      if (value !== undefined && !(best.has(name) && best.get(name).value <= value)) best.set(name, { value, id: one.id });
    }
    return best;
  }

  // Who made it, in a few words.
  origin(one) {
    return one.proposed_by === 'seed' ? one.detail : `${makerName(one.proposed_by)}, ${one.operator}`;
  }

  maker(one) {
    return MAKERS[one.proposed_by] || one.proposed_by;
  }

  // All candidates that it descends from, itself included.
  ancestors(id) {
    const found = new Set();
    const left = [id];
    while (left.length) {
      const name = left.pop();
      if (found.has(name) || !this.byId.has(name)) continue;
      found.add(name);
      left.push(...this.byId.get(name).parents);
    }
    return found;
  }

  // What became of the hypotheses, in the order in which they were judged: {lesson, step}.
  get lessons() {
    return [...this.steps.values()].flatMap((step) => step.acts.flatMap((act) => lessonsOf(act).map((lesson) => ({ lesson, step }))));
  }

  // The steps of a search in which the brain was asked, in order.
  get asked() {
    return [...this.steps.values()].filter((step) => step.think && isAsked(step.think));
  }
}

function stepsOf(records) {
  const steps = new Map();
  for (const record of records) {
    if (!steps.has(record.step)) steps.set(record.step, { number: record.step, think: null, acts: [], judge: null });
    const step = steps.get(record.step);
    if (record.kind === 'act') step.acts.push(record);
    else step[record.kind] = record;
  }
  return new Map([...steps].sort((one, other) => one[0] - other[0]));
}

function lessonsOf(act) {
  const found = act.result && act.result.lessons;
  return Array.isArray(found) ? found.filter((one) => one && typeof one === 'object') : [];
}

// Whether a brain was asked, and not a tool: what is in brackets is said of a turn without a prompt.
function isAsked(think) {
  return typeof think.prompt === 'string' && think.prompt !== '' && !/^\([^\n]*\)$/.test(think.prompt);
}

// Records known already with those that are new; one that is told again replaces itself.
function merged(records, added) {
  const key = (record) => `${record.step} ${record.kind} ${record.call || 0}`;
  const order = { think: 0, act: 1, judge: 2 };
  const all = new Map(records.map((record) => [key(record), record]));
  for (const record of added) all.set(key(record), record);
  return [...all.values()].sort((one, other) =>
    one.step - other.step || order[one.kind] - order[other.kind] || (one.call || 0) - (other.call || 0));
}
