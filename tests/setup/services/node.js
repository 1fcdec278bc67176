// Answers with what it was sent, and ends by itself when asked to.
const http = require('http');
const server = http.createServer((request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => response.end(Buffer.concat(parts).toString().toUpperCase() || `node ${process.version}\n`));
});
server.listen(3000, '::', () => console.log('listening'));
process.on('SIGTERM', () => server.close(() => { console.log('bye'); process.exit(0); }));
