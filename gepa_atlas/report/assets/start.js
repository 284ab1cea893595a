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
