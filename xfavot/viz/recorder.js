// A button that records the microphone for at most 15 seconds. The bytes of the recording go to Python.
const LONGEST_MS = 15000;

function render({ model, el }) {
  const button = document.createElement("button");
  const said = document.createElement("span");
  button.className = "jupyter-button widget-button";
  button.style.width = "12em";
  button.textContent = "record a voice";
  said.setAttribute("role", "status");
  let recorder = null;
  button.addEventListener("click", async () => {
    if (recorder) {
      recorder.stop();
      return;
    }
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    } catch (error) {
      said.textContent =
        ` no microphone (${error.message}): allow it, open the page at localhost or by https, or add a file`;
      return;
    }
    const parts = [];
    recorder = new MediaRecorder(stream);
    const limit = setTimeout(() => recorder && recorder.stop(), LONGEST_MS);
    recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
    recorder.addEventListener("stop", async () => {
      clearTimeout(limit);
      stream.getTracks().forEach((track) => track.stop());
      recorder = null;
      button.textContent = "record a voice";
      said.textContent = "";
      model.set("content", new DataView(await new Blob(parts).arrayBuffer()));
      model.save_changes();
    });
    recorder.start();
    button.textContent = "stop";
    said.textContent = " recording, at most 15 s";
  });
  el.append(button, said);
}

export default { render };
