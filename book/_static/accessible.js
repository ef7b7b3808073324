// What the makers of pages and sliders leave out for those who read by keyboard or by ear.
document.addEventListener("DOMContentLoaded", () => {
  const complete = () => {
    for (const handle of document.querySelectorAll(".noUi-handle:not([aria-label])")) {
      const label = handle.closest(".jupyter-widgets")?.querySelector(".widget-label");
      if (label?.textContent) handle.setAttribute("aria-label", label.textContent);
    }
    // A slider over frames says what the frame shown says, not the frame's number.
    for (const box of document.querySelectorAll(".ebmm-frames")) {
      const shown = [...box.querySelectorAll("img")].find((image) => image.checkVisibility());
      const words = shown?.previousElementSibling?.textContent;
      for (const handle of box.querySelectorAll(".noUi-handle"))
        if (words && handle.getAttribute("aria-valuetext") !== words) handle.setAttribute("aria-valuetext", words);
    }
    for (const box of document.querySelectorAll("table, .cell_output, div.math, pre"))
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0; // so that arrow keys scroll it
    for (const list of document.querySelectorAll(".citation-list[role=list]")) list.removeAttribute("role");
  };
  let waiting; // one look at the page in a frame, however much of it changes
  const soon = () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(complete);
  };
  soon();
  window.addEventListener("load", soon);
  window.addEventListener("resize", soon);
  new MutationObserver(soon).observe(document.body, {
    childList: true,
    subtree: true,
    attributeFilter: ["aria-valuenow"],
  });
});
