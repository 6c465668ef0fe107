// Reads a JSON list of texts, writes for each what Twilio's own calculator makes of it:
// the encoding, the number of segments, and whether some grapheme has several code points.
const { SegmentedMessage } = require("sms-segments-calculator");

let input = "";
process.stdin.setEncoding("utf8");
process.stdin.on("data", (piece) => { input += piece; });
process.stdin.on("end", () => {
  const found = JSON.parse(input).map((text) => {
    const message = new SegmentedMessage(text);
    return [message.encodingName, message.segmentsCount, message.graphemes.some((one) => [...one].length > 1)];
  });
  process.stdout.write(JSON.stringify(found));
});
