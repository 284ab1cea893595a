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
    this.space = h('div', {style: 'position:relative'});
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
    return [h('div', {class: 'a', style: pad}, h('span', {class: 'dot ' + kind(item)}), h('b', {}, item.refused ? 'no candidate' : row.id.slice(0, 8)),
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
  $('candidate').replaceChildren(h('h3', {}, r.op + ' (slot ' + r.slot + '): no candidate'), h('p', {}, r.reason),
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

// -- heat map ---------------------------------------------------------------------------------------------------------------

const colour = name => {
  const probe = h('i', {style: 'color:var(--' + name + ')'});
  document.body.append(probe);
  const c = getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
  probe.remove();
  return c;
};
const css = c => 'rgb(' + c.map(Math.round).join(',') + ')';

function heat(cells) {
  const canvas = $('heat'), [rows, columns] = head.heat, box = canvas.parentElement;
  if (!rows || !columns) return;
  box.classList.add('heat');
  const space = h('div', {});
  box.append(space);
  space.append(canvas);
  const width = Math.max(3, Math.min(16, Math.floor((box.clientWidth - 2) / columns))), height = rows > 300 ? 5 : rows > 80 ? 8 : 12;
  space.style.cssText = 'width:' + width * columns + 'px;height:' + height * rows + 'px';
  const row = y => y === 0 ? rows - 1 : y - 1; // without guidance first
  let at = null;
  const paint = () => {
    const w = Math.min(box.clientWidth, width * columns), t = Math.min(box.clientHeight, height * rows), scale = devicePixelRatio || 1;
    canvas.width = w * scale; canvas.height = t * scale;
    canvas.style.cssText = 'width:' + w + 'px;height:' + t + 'px';
    const pen = canvas.getContext('2d'), low = colour('low'), high = colour('high');
    const ramp = Array.from({length: 101}, (_, s) => css(low.map((c, k) => c + (high[k] - c) * s / 100))), failed = css(colour('failed'));
    pen.scale(scale, scale);
    pen.fillStyle = css(colour('none'));
    pen.fillRect(0, 0, w, t);
    const x0 = Math.floor(box.scrollLeft / width), y0 = Math.floor(box.scrollTop / height);
    for (let y = y0; y < rows && y * height < box.scrollTop + t; y++) {
      for (let x = x0; x < columns && x * width < box.scrollLeft + w; x++) {
        const code = cells[row(y) * columns + x];
        if (!code) continue;
        pen.fillStyle = code === FAILED ? failed : ramp[code - ZERO];
        pen.fillRect(x * width - box.scrollLeft, y * height - box.scrollTop, width - (width > 5 ? 1 : 0), height - (height > 6 ? 1 : 0));
      }
    }
    if (at) {
      pen.strokeStyle = css(colour('ink')); pen.lineWidth = 2;
      pen.strokeRect(at[0] * width - box.scrollLeft, at[1] * height - box.scrollTop, width, height);
    }
  };
  const say = () => {
    const code = cells[row(at[1]) * columns + at[0]], c = head.candidates[row(at[1])];
    const what = code === 0 ? 'not evaluated' : code === FAILED ? 'failed, no score' : 'scored ' + ((code - ZERO) / 100).toFixed(2);
    const e = head.examples[at[0]];
    $('heat-said').textContent = (at[1] === 0 ? 'without guidance' : 'candidate ' + c.id.slice(0, 8)) + ' on ' + e.id + ' (' + (e.split === 'val' ? 'select' : e.split) + '): ' + what;
  };
  const move = (x, y) => {
    at = [Math.max(0, Math.min(columns - 1, x)), Math.max(0, Math.min(rows - 1, y))];
    if (at[0] * width < box.scrollLeft) box.scrollLeft = at[0] * width;
    if ((at[0] + 1) * width > box.scrollLeft + box.clientWidth) box.scrollLeft = (at[0] + 1) * width - box.clientWidth;
    if (at[1] * height < box.scrollTop) box.scrollTop = at[1] * height;
    if ((at[1] + 1) * height > box.scrollTop + box.clientHeight) box.scrollTop = (at[1] + 1) * height - box.clientHeight;
    paint(); say();
  };
  const open = () => at && window.dispatchEvent(new CustomEvent('open-example', {detail: {example: at[0], candidate: at[1] === 0 ? BASELINE : row(at[1])}}));
  const under = e => [Math.floor((e.offsetX + box.scrollLeft) / width), Math.floor((e.offsetY + box.scrollTop) / height)];
  canvas.addEventListener('pointermove', e => { const [x, y] = under(e); if (x < columns && y < rows) { at = [x, y]; paint(); say(); } });
  canvas.addEventListener('click', e => { const [x, y] = under(e); if (x < columns && y < rows) { at = [x, y]; open(); } });
  canvas.addEventListener('keydown', e => {
    const [x, y] = at || [0, 0], to = {ArrowLeft: [x - 1, y], ArrowRight: [x + 1, y], ArrowUp: [x, y - 1], ArrowDown: [x, y + 1], Home: [0, y], End: [columns - 1, y]}[e.key];
    if (to) { e.preventDefault(); move(...(at ? to : [0, 0])); } else if (e.key === 'Enter') open();
  });
  box.addEventListener('scroll', paint, {passive: true});
  new ResizeObserver(paint).observe(box);
  window.addEventListener('theme', paint);
  paint();
}

// -- figures: plotly is unpacked when the first of them comes into sight --------------------------------------------------

let plotly;
const library = () => plotly ||= text('d-plotly').then(source => document.head.append(h('script', {}, source)));

const FIGURES = {
  course: ink => {
    const c = head.course, x = c.map(s => s[0]), name = s => s[3] < 0 ? '' : head.candidates[s[3]].id.slice(0, 8) + ', ' + head.candidates[s[3]].op;
    const flat = {x, mode: 'lines', line: {shape: 'hv', width: 0}, hoverinfo: 'skip', showlegend: false};
    return {data: [{...flat, y: c.map(s => s[1] - s[2])}, {...flat, y: c.map(s => s[1] + s[2]), fill: 'tonexty', fillcolor: ink.band},
      {x, y: c.map(s => s[1]), mode: 'lines', line: {shape: 'hv', width: 2, color: ink.accent}, text: c.map(name), hovertemplate: '%{y:+.3f} after %{x} rollouts<br>%{text}<extra></extra>'}],
    x: 'rollouts', y: 'mean gain, search (select) split'};
  },
  front: ink => {
    const rows = head.candidates.map((r, i) => ({...r, i})).filter(r => r.gain !== undefined), priced = rows.some(r => r.tokens !== null && r.tokens !== undefined);
    const trace = (list, marker) => ({x: list.map(r => priced ? r.tokens : r.size), y: list.map(r => r.gain), customdata: list.map(r => r.i), mode: 'markers', type: 'scatter',
      text: list.map(r => r.id.slice(0, 8) + ', ' + r.op + '<br>' + (100 * r.harm).toFixed(0) + ' % harmed, ' + r.n + ' lessons' + (r.dollars ? '<br>$' + r.dollars : '')),
      hovertemplate: '%{y:+.3f}, %{x:.0f}<br>%{text}<extra></extra>', marker: {...marker, color: list.map(r => r.harm), cmin: 0, cmax: Math.max(.1, ...rows.map(r => r.harm)), colorscale: [[0, ink.high], [1, ink.bad]]}});
    const main = trace(rows.filter(r => !r.pareto), {size: 6, opacity: .45}), front = trace(rows.filter(r => r.pareto), {size: 11, line: {width: 2, color: ink.ink}});
    main.marker.colorbar = {title: {text: 'harmed'}, thickness: 10, tickformat: '.0%', outlinewidth: 0};
    return {data: [main, front], x: priced ? 'tokens of an answer' : 'characters of the prompt', y: 'gain, search (select) split', click: p => openCandidate(p.points[0].customdata)};
  },
};
async function draw(box) {
  await library();
  const rgb = n => css(colour(n)), ink = {ink: rgb('ink'), accent: rgb('accent'), high: rgb('high'), bad: rgb('bad'), band: 'rgba(' + colour('accent').join(',') + ',.18)'};
  const {data, x, y, click} = FIGURES[box.dataset.figure](ink), axis = {gridcolor: rgb('line'), zerolinecolor: rgb('soft'), linecolor: rgb('line')};
  await Plotly.react(box, data, {margin: {l: 54, r: 12, t: 10, b: 42}, paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', font: {color: ink.ink, size: 12},
    showlegend: false, hovermode: 'closest', xaxis: {...axis, title: {text: x}}, yaxis: {...axis, title: {text: y}}}, {responsive: true, displaylogo: false, displayModeBar: false});
  if (click && !box.dataset.wired) { box.dataset.wired = '1'; box.on('plotly_click', click); }
}
function figures() {
  if (!$('d-plotly')) return;
  const boxes = [...document.querySelectorAll('.plot')];
  const seen = new IntersectionObserver(entries => {
    for (const e of entries) if (e.isIntersecting) { seen.unobserve(e.target); draw(e.target); e.target.dataset.seen = '1'; }
  }, {rootMargin: '200px'});
  boxes.forEach(box => seen.observe(box));
  window.addEventListener('theme', () => boxes.filter(b => b.dataset.seen).forEach(draw));
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

async function start() {
  theme();
  head = JSON.parse(await text('d-head'));
  exporting(JSON.parse(await text('d-exports')));
  for (const row of await lines('d-candidates')) 'demo' in row ? demos.set(row.demo, row) : bodies.set(row.i, row);
  for (const row of await lines('d-lessons')) {
    if ('x' in row) { questions.set(row.x, row); continue; }
    if (!lessons.has(row.e)) lessons.set(row.e, []);
    lessons.get(row.e).push(row);
  }
  ancestors(); lineage(); examples(); figures();
  heat(await unpack('d-heat'));
  document.querySelectorAll('[data-candidate]').forEach(a => a.addEventListener('click', e => {
    const i = head.candidates.findIndex(r => r.id === a.dataset.candidate);
    if (i >= 0) { e.preventDefault(); openCandidate(i); }
  }));
  document.body.dataset.ready = '1';
}
start();
