// Lets readers of the published pages choose a version of the book. On a copy anywhere else (a preview, a server at
// home, files on a disk) it does nothing and asks for nothing.
document.addEventListener("DOMContentLoaded", async () => {
  const canonical = document.querySelector("link[rel=canonical]");
  const root = new URL(document.documentElement.dataset.content_root || "./", location.href);
  const [, published, , version] = root.pathname.match(/^(.*?\/)((v\d[^/]*)\/)?$/);
  if (!canonical || !canonical.href.startsWith(location.origin + published)) return;

  let versions;
  try {
    const answer = await fetch(published + "versions.json");
    if (!answer.ok) return;
    versions = await answer.json();
  } catch {
    return;
  }
  const choice = document.createElement("select");
  choice.className = "form-select form-select-sm";
  choice.setAttribute("aria-label", "Version of the book");
  for (const [name, folder] of [["newest", ""], ...versions.map((tag) => [tag, tag + "/"])]) {
    choice.add(new Option(name, folder, false, folder === (version ? version + "/" : "")));
  }
  choice.addEventListener("change", async () => {
    const start = published + choice.value;
    const page = start + location.pathname.slice(root.pathname.length);
    const there = await fetch(page, { method: "HEAD" }).catch(() => ({ ok: false }));
    location.assign(there.ok ? page : start);
  });
  const sidebar = document.querySelector(".sidebar-primary-items__start") || document.body;
  sidebar.insertBefore(choice, sidebar.children[1] || null); // below the logo
});
