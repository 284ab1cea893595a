'use strict';
// Draws what the page holds in packed form. Every text comes in through textContent: nothing that a model wrote is ever markup.

const $ = id => document.getElementById(id);
const BASELINE = -1, FAILED = 1, ZERO = 2;

function h(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props || {})) {
    if (key === 'class') node.className = value;
    else if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.flat().filter(c => c !== null && c !== undefined && c !== '').map(c => c instanceof Node ? c : String(c)));
  return node;
}

async function unpack(id) {
  const raw = atob($(id).textContent.trim()), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate-raw'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
const text = async id => new TextDecoder().decode(await unpack(id));
const lines = async id => (await text(id)).split('\n').filter(Boolean).map(line => JSON.parse(line));

const signed = v => v === null || v === undefined ? '–' : (v < 0 ? '−' : '+') + Math.abs(v).toFixed(3);
const score = v => v === null || v === undefined ? '–' : v.toFixed(2);

// -- one list for every long table: only the rows in sight exist --------------------------------------------------------

class List {
  constructor(box, height, draw, pick) {
    Object.assign(this, {box, height, draw, pick, items: [], at: -1});
    this.space = h('div', {style: 'position:relative', role: 'presentation'});
    box.replaceChildren(this.space);
    box.addEventListener('scroll', () => this.paint(), {passive: true});
    box.addEventListener('keydown', e => this.key(e));
    new ResizeObserver(() => this.paint()).observe(box);
  }
  show(items) {
    this.items = items;
    this.at = -1;
    this.space.style.height = items.length * this.height + 'px';
    this.box.scrollTop = 0;
    this.paint();
  }
  paint() {
    const from = Math.max(0, Math.floor(this.box.scrollTop / this.height) - 4);
    const to = Math.min(this.items.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / this.height) + 4);
    const now = [from, to, this.at, this.items];
    if (this.painted && now.every((v, k) => v === this.painted[k])) return;
    this.painted = now;
    const rows = [];
    for (let i = from; i < to; i++) {
      const on = i === this.at;
      rows.push(h('div', {class: 'row' + (on ? ' on' : ''), role: 'option', id: this.box.id + '-' + i, 'aria-selected': on,
        'aria-setsize': this.items.length, 'aria-posinset': i + 1, style: 'top:' + i * this.height + 'px', onclick: () => this.choose(i)},
      this.draw(this.items[i])));
    }
    this.space.replaceChildren(...rows);
  }
  choose(i) {
    if (i < 0 || i >= this.items.length) return;
    this.at = i;
    const top = i * this.height;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    if (top + this.height > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + this.height - this.box.clientHeight;
    this.paint();
    this.box.setAttribute('aria-activedescendant', this.box.id + '-' + i);
    this.pick(this.items[i]);
  }
  key(e) {
    const page = Math.max(1, Math.floor(this.box.clientHeight / this.height) - 1), last = this.items.length - 1;
    const to = {ArrowDown: this.at + 1, ArrowUp: this.at - 1, PageDown: this.at + page, PageUp: this.at - page, Home: 0, End: last}[e.key];
    if (to === undefined) return;
    e.preventDefault();
    this.choose(Math.max(0, Math.min(last, to)));
  }
}

// -- texts of candidates: edits of the parent's ---------------------------------------------------------------------------

const bodies = new Map(), demos = new Map(), known = new Map();
let head;

function read(old, recipe) { // pieces of a recipe: a number keeps, a negative one drops, a text is put in
  const from = Array.from(old), pieces = [];
  let at = 0;
  for (const step of recipe) {
    if (typeof step === 'string') { pieces.push(['+', step]); continue; }
    pieces.push([step > 0 ? '=' : '-', from.slice(at, at + Math.abs(step)).join('')]);
    at += Math.abs(step);
  }
  return pieces;
}
function textsOf(i) {
  if (known.has(i)) return known.get(i);
  const chain = [];
  for (let k = i; k !== null && !known.has(k); k = bodies.get(k).base) {
    if (!bodies.has(k)) return null;
    chain.push(k);
  }
  for (const k of chain.reverse()) {
    const body = bodies.get(k), base = body.base === null ? {} : known.get(body.base);
    const own = {...base};
    for (const [name, recipe] of Object.entries(body.texts)) {
      own[name] = read(base[name] || '', recipe).filter(p => p[0] !== '-').map(p => p[1]).join('');
    }
    known.set(k, own);
  }
  return known.get(i);
}
const drawn = pieces => h('pre', {class: 'diff'}, pieces.map(([op, t]) => op === '=' ? t : h(op === '+' ? 'ins' : 'del', {}, t)));

const shown = (d, tag) => h('p', {class: 'demo'}, h(tag, {}, demos.get(d).q), h('br'), h('span', {class: 'small'}, 'answer '), h(tag, {}, demos.get(d).a));

function diffTo(i, recipes) { // from candidate i to the challenger: texts, then demonstrations
  const base = textsOf(i), old = bodies.has(i) ? bodies.get(i).demos || [] : [], now = bodies.has(head.challenger) ? bodies.get(head.challenger).demos || [] : [];
  if (!base) return [h('p', {class: 'small'}, 'The text of that candidate is not on this page.')];
  return [...Object.entries(recipes).flatMap(([name, recipe]) => [h('h4', {}, name), drawn(read(base[name] || '', recipe))]),
    ...now.map(d => shown(d, old.includes(d) ? 'span' : 'ins')), ...old.filter(d => !now.includes(d)).map(d => shown(d, 'del'))];
}

// -- lineage ----------------------------------------------------------------------------------------------------------------

function lineage() {
  const rows = head.candidates, children = rows.map(() => []), roots = [];
  rows.forEach((row, i) => (row.parents.length && row.parents[0] < i ? children[row.parents[0]] : roots).push({i}));
  head.refusals.forEach(r => (r.parent === null || r.parent === undefined ? roots : children[r.parent]).push({refused: r}));
  const order = [], stack = roots.reverse().map(item => ({...item, depth: 0}));
  while (stack.length) { // parents before children, in order of arrival
    const item = stack.pop();
    order.push(item);
    if (item.i !== undefined) stack.push(...children[item.i].map(c => ({...c, depth: item.depth + 1})).reverse());
  }
  const line = new Set(), waiting = [head.challenger];
  while (waiting.length) {
    const i = waiting.pop();
    if (!line.has(i)) { line.add(i); waiting.push(...rows[i].parents); }
  }
  const kind = item => item.refused ? 'refused' : rows[item.i].status === 'seed' ? 'seed' : rows[item.i].status === 'not added' ? 'dropped' : 'kept';
  const draw = item => {
    const pad = 'padding-left:' + Math.min(item.depth, 14) * 10 + 'px', row = item.refused || rows[item.i];
    const marks = item.refused ? [] : [item.i === head.challenger ? h('span', {class: 'badge fixed'}, 'tested') : '',
      row.pareto ? h('span', {class: 'badge'}, 'front') : ''];
    return [h('div', {class: 'a', style: pad}, h('span', {class: 'dot ' + kind(item)}), h('b', {}, item.refused ? 'nothing new' : row.id.slice(0, 8)),
      h('span', {class: 'fill'}, row.op), ...marks, item.refused || row.gain === undefined ? '' : h('span', {class: 'n'}, signed(row.gain))),
    h('div', {class: 'b', style: pad}, row.reason)];
  };
  const list = new List($('tree'), 46, draw, item => item.refused ? showRefusal(item.refused) : showCandidate(item.i));
  const filter = () => {
    const want = $('tree-filter').value, find = $('tree-find').value.toLowerCase();
    const found = order.filter(item => {
      const row = item.refused || rows[item.i], k = kind(item);
      if (want === 'line' ? item.refused || !line.has(item.i) : want === 'kept' ? k !== 'kept' && k !== 'seed' : want !== 'all' && k !== want) return false;
      return !find || [row.id, row.op, row.reason, row.note].some(t => t && t.toLowerCase().includes(find));
    });
    list.show(found);
    $('tree-count').textContent = found.length + ' of ' + order.length;
  };
  $('tree-filter').addEventListener('change', filter);
  $('tree-find').addEventListener('input', filter);
  filter();
  window.addEventListener('open-candidate', e => {
    $('tree-filter').value = 'all'; $('tree-find').value = ''; filter();
    list.choose(order.findIndex(item => item.i === e.detail));
    $('lineage').scrollIntoView();
    $('tree').focus();
  });
}
const openCandidate = i => window.dispatchEvent(new CustomEvent('open-candidate', {detail: i}));
const link = i => h('button', {type: 'button', onclick: () => openCandidate(i)}, head.candidates[i].id.slice(0, 8));

function showRefusal(r) {
  $('candidate').replaceChildren(h('h3', {}, r.op + ' (slot ' + r.slot + '): no new candidate'), h('p', {}, r.reason),
    r.parent === null || r.parent === undefined ? '' : h('p', {}, 'It was to be a child of ', link(r.parent), '.'));
}
function showCandidate(i) {
  const row = head.candidates[i], body = bodies.get(i), out = [];
  out.push(h('h3', {}, row.id, i === head.seed ? ' (the seed)' : ''));
  out.push(h('p', {}, h('b', {}, row.status), ': ', row.reason));
  if (row.note && !row.reason.includes(row.note)) out.push(h('p', {}, row.note));
  out.push(h('p', {class: 'small'}, 'by ', row.op, row.slot === null ? '' : ', slot ' + row.slot, ', ' + row.size + ' characters',
    row.parents.length ? ', from ' : '', row.parents.map(link)));
  if (row.gain !== undefined) {
    out.push(h('p', {}, 'Search (select) split: gain ', h('b', {}, signed(row.gain)), row.low === null ? '' : ' [' + signed(row.low) + ', ' + signed(row.high) + ']',
      ' on ' + row.n + ' lessons, ' + (100 * row.harm).toFixed(1) + ' % harmed', row.tokens === null || row.tokens === undefined ? '' : ', ' + row.tokens + ' tokens an answer'));
  } else out.push(h('p', {class: 'small'}, 'It was never measured on the search (select) split.'));
  if (!body) out.push(h('p', {class: 'small'}, 'Its text is not on this page: gepa-atlas why RUN ' + row.id));
  else {
    const base = body.base === null ? {} : textsOf(body.base), changed = Object.entries(body.texts);
    out.push(h('h4', {}, body.base === null ? 'Its text' : 'What it changed of its parent'));
    for (const [name, recipe] of changed) out.push(h('h4', {}, name), drawn(read(base[name] || '', recipe)));
    if (!changed.length) out.push(h('p', {class: 'small'}, 'No text.'));
    const before = new Set(body.base !== null && bodies.has(body.base) ? bodies.get(body.base).demos || [] : []);
    for (const d of body.demos || []) out.push(shown(d, before.has(d) ? 'span' : 'ins'));
    for (const [k, v] of Object.entries(body.settings || {})) out.push(h('p', {}, h('code', {}, k + ' = ' + v)));
  }
  $('candidate').replaceChildren(...out);
}

// -- examples ---------------------------------------------------------------------------------------------------------------

const questions = new Map(), lessons = new Map();

function examples() {
  const draw = j => {
    const row = head.examples[j];
    return [h('div', {class: 'a'}, h('span', {class: 'badge'}, row.split === 'val' ? 'select' : row.split), h('span', {class: 'fill'}, row.q),
      row.flags.map(f => h('span', {class: 'badge ' + f.split(' ')[0]}, f === 'below seed' ? 'below seed' : f))),
    h('div', {class: 'b'}, row.id + ':  ' + score(row.base) + ' → ' + score(row.seed) + ' → ' + score(row.won))];
  };
  const list = new List($('ex-list'), 46, draw, showExample);
  const filter = () => {
    const want = $('ex-filter').value, split = $('ex-split').value, find = $('ex-find').value.toLowerCase(), found = [];
    head.examples.forEach((row, j) => {
      if ((want === 'all' || row.flags.includes(want)) && (split === 'all' || row.split === split) &&
        (!find || row.q.toLowerCase().includes(find) || row.id.toLowerCase().includes(find))) found.push(j);
    });
    list.show(found);
    $('ex-count').textContent = found.length + ' of ' + head.examples.length;
    return found;
  };
  for (const id of ['ex-filter', 'ex-split']) $(id).addEventListener('change', filter);
  $('ex-find').addEventListener('input', filter);
  filter();
  window.addEventListener('open-example', e => {
    $('ex-filter').value = $('ex-split').value = 'all'; $('ex-find').value = '';
    list.choose(filter().indexOf(e.detail.example));
    if (e.detail.candidate !== BASELINE) showExample(e.detail.example, e.detail.candidate);
    $('examples').scrollIntoView();
    $('ex-list').focus();
  });
}

function side(title, row) {
  if (!row) return h('div', {class: 'side'}, h('h4', {}, title), h('p', {class: 'small'}, 'Not evaluated, or not on this page.'));
  const judged = row.p.map(([judge, value, why, noise]) => h('p', {class: 'small'}, h('b', {}, judge + ' ' + score(value)), noise ? ' ±' + noise.toFixed(2) : '', why ? ': ' + why : ''));
  return h('div', {class: 'side'}, h('h4', {}, title), h('p', {}, 'reward ', h('span', {class: 'score'}, row.v === null ? 'none' : row.v.toFixed(3))),
    row.why ? h('p', {class: 'small'}, 'no score: ' + row.why) : '', row.o === undefined ? h('p', {class: 'small'}, 'no answer') : h('pre', {}, row.o),
    judged,
    row.g ? h('details', {open: ''}, h('summary', {}, 'Guidance written for it' + (row.support ? ' (' + row.support + ')' : '')), h('pre', {}, row.g)) : '');
}
function showExample(j, chosen) {
  const row = head.examples[j], q = questions.get(j), rows = lessons.get(j) || [];
  const of = c => rows.find(r => r.c === c && !r.s), others = rows.filter(r => r.c !== BASELINE && r.c !== head.seed && r.c !== head.challenger || r.s);
  const sides = h('div', {class: 'sides'}, side('Without guidance', of(BASELINE)), side('With the seed prompt', of(head.seed)));
  if (head.challenger !== head.seed) sides.append(side('With the evolved prompt', of(head.challenger)));
  const extra = h('div', {class: 'sides'});
  const pick = h('select', {'aria-label': 'Another candidate', onchange: e => {
    const r = rows[e.target.value];
    extra.replaceChildren(r ? side('With ' + head.candidates[r.c].id.slice(0, 8) + (r.s ? ', run ' + (r.s + 1) : ''), r) : '');
  }}, h('option', {value: ''}, others.length + ' more'), others.map(r => h('option', {value: rows.indexOf(r)}, head.candidates[r.c].id.slice(0, 8) + (r.s ? ', run ' + (r.s + 1) : '') + ': ' + score(r.v))));
  $('lesson').replaceChildren(h('h3', {}, row.id), h('pre', {}, q ? q.q : row.q), q && q.context ? h('details', {}, h('summary', {}, 'Context'), h('pre', {}, q.context)) : '',
    q && q.gold.length ? h('p', {class: 'small'}, 'Accepted: ', h('b', {}, q.gold.join(' | '))) : h('p', {class: 'small'}, 'No gold answer.'), sides,
    others.length ? h('p', {}, h('label', {class: 'small'}, 'Another candidate: ', pick)) : '', extra);
  const wanted = chosen === undefined ? -1 : rows.findIndex(r => r.c === chosen);
  if (wanted >= 0 && others.includes(rows[wanted])) { pick.value = wanted; pick.dispatchEvent(new Event('change')); }
}

// -- tools ------------------------------------------------------------------------------------------------------------------

function theme() {
  const dark = matchMedia('(prefers-color-scheme: dark)'), changed = () => window.dispatchEvent(new Event('theme'));
  $('theme').addEventListener('click', () => {
    const now = document.documentElement.dataset.theme || (dark.matches ? 'dark' : 'light');
    document.documentElement.dataset.theme = now === 'dark' ? 'light' : 'dark';
    changed();
  });
  dark.addEventListener('change', changed);
}

function exporting(forms) {
  const now = () => forms[$('form').value], show = () => $('export').replaceChildren(h('pre', {tabindex: 0, 'aria-label': 'The prompt as ' + $('form').value}, now().text));
  const say = what => { $('done').textContent = what; setTimeout(() => { $('done').textContent = ''; }, 2500); };
  $('form').addEventListener('change', show);
  $('copy').addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(now().text);
      say('copied');
    } catch { // not allowed here: select it, so that the usual keys copy it
      getSelection().selectAllChildren($('export').firstChild);
      say(document.execCommand('copy') ? 'copied' : 'selected: copy it with your keyboard');
    }
  });
  $('save').addEventListener('click', () => {
    const url = URL.createObjectURL(new Blob([now().text], {type: 'text/plain'}));
    h('a', {href: url, download: now().file}).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
    say('saved as ' + now().file);
  });
  show();
}

function ancestors() {
  const pick = $('ancestor');
  if (!pick) return;
  const keys = Object.keys(head.diffs).map(Number).sort((a, b) => a - b);
  pick.replaceChildren(...keys.map(i => h('option', {value: i}, i === head.seed ? 'the seed' : head.candidates[i].id.slice(0, 8) + ' (' + head.candidates[i].op + ')')));
  pick.value = head.seed;
  pick.addEventListener('change', () => $('diff').replaceChildren(...diffTo(+pick.value, head.diffs[pick.value])));
}
