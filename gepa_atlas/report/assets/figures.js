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
