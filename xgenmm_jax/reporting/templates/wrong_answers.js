'use strict';
// Hides the answers that do not fit what is chosen; nothing is loaded, stored or sent.
(() => {
  const items = Array.from(document.querySelectorAll('.items > article'));
  const texts = items.map(item => item.textContent.replace(/\s+/g, ' ').toLowerCase());
  const choices = Array.from(document.querySelectorAll('.filters select'));
  const search = document.getElementById('search');
  const count = document.getElementById('count');

  function show() {
    const words = search.value.trim().replace(/\s+/g, ' ').toLowerCase();
    let shown = 0;
    items.forEach((item, index) => {
      const fits = choices.every(
        choice => choice.value === '' || item.getAttribute('data-' + choice.name) === choice.value
      );
      item.hidden = !(fits && texts[index].includes(words));
      shown += item.hidden ? 0 : 1;
    });
    count.textContent = shown + ' of ' + items.length + ' shown';
  }

  choices.forEach(choice => choice.addEventListener('change', show));
  search.addEventListener('input', show);
  document.querySelector('.filters').hidden = false;
  // A browser that goes back to the page puts the old choices in again.
  window.addEventListener('pageshow', show);
  show();
})();
