// From file://, a browser starts no worker from another file: start it from the text of the program instead.
if (location.protocol === "file:") {
  const program = PROGRAM;
  const FileWorker = window.Worker;
  window.Worker = function (url, options) {
    return new FileWorker(URL.createObjectURL(new Blob([program], { type: "text/javascript" })), options);
  };
}
