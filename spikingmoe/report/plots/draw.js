"use strict";
// Draws each plot when it can first be seen. `ast`: expressions are interpreted, so that the page's policy
// need not allow eval.
(() => {
  const options = {mode: "vega-lite", renderer: "svg", actions: false, ast: true};
  const begun = new Set();
  async function draw(place) {
    if (begun.has(place) || !place.offsetWidth) return;
    begun.add(place);
    const target = place.querySelector(".drawing");
    try {
      const spec = JSON.parse(place.querySelector("script").textContent);
      await vegaEmbed(target, spec, options);
      place.dataset.state = "drawn";
    } catch (error) {
      place.dataset.state = "failed";
      target.textContent = "This plot could not be drawn: " + error.message;
      console.error(error);
    }
  }
  const drawAll = () => document.querySelectorAll(".plot").forEach(draw);
  document.querySelectorAll("input.runpick").forEach((pick) => pick.addEventListener("change", drawAll));
  document.querySelectorAll("details").forEach((part) => part.addEventListener("toggle", drawAll));
  drawAll();
})();
