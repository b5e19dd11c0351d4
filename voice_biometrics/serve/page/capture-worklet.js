/** Passes microphone samples to the page: blocks of 1,024, copied from the 128 of an audio callback. */
class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Float32Array(1024);
    this.filled = 0;
  }

  process([input]) {
    if (input.length) {
      this.block.set(input[0], this.filled);
      this.filled += input[0].length;
      if (this.filled === this.block.length) {
        this.port.postMessage(this.block.slice());
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("capture", Capture);
