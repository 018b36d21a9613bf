'use strict';

// A column's heading sorts by it; once more turns the order round.
for (const table of document.querySelectorAll('.sortable')) {
  const headings = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const sort = (heading, column) => {
    const sign = heading.getAttribute('aria-sort') === 'ascending' ? -1 : 1;
    for (const other of headings) other.setAttribute('aria-sort', 'none');
    heading.setAttribute('aria-sort', sign > 0 ? 'ascending' : 'descending');
    const text = row => row.cells[column].textContent;
    const number = row => parseFloat(text(row));
    const known = row => column === 0 || !isNaN(number(row));
    const compare = (a, b) => known(b) - known(a) || sign * (
      column === 0 ? text(a).localeCompare(text(b)) : number(a) - number(b));
    body.append(...[...body.rows].sort(compare));
  };
  headings.forEach((heading, column) => {
    heading.addEventListener('click', () => sort(heading, column));
  });
}

// Pointing at a cell of the matrix prints its numbers.
const matrix = document.querySelector('.matrix');
const readout = document.querySelector('.readout');
matrix.addEventListener('pointerover', event => {
  const cell = event.target.closest('tbody td');
  if (!cell) return;
  const row = cell.parentNode;
  const label = row.cells[0].textContent;
  const prediction = matrix.tHead.rows[0].cells[cell.cellIndex].textContent;
  const count = Number(cell.dataset.n || 0), total = Number(row.dataset.total);
  const share = total ? `${(100 * count / total).toFixed(2)} %` : '–';
  readout.textContent = `${label.trim()} → ${prediction.trim()}: ${share} (` +
    `${count.toLocaleString('en')} of ${total.toLocaleString('en')} pixels)`;
});

const slider = document.querySelector('.fade input');
slider?.addEventListener('input', () => {
  document.documentElement.style.setProperty('--opacity', slider.value);
});
