//! Every capacity in one place, with the memory that it costs. A limit reached is an error or a refusal with
//! a reason, never growth.

/// Bytes of one slot: the unit of buffer and of accounting (DESIGN section 5).
pub const SLOT_BYTES: usize = 16 * 1024;

/// Largest file that is pooled: positions, and sums of a few of them, are numbers of 64 bits. No disk is as large.
pub const MAX_FILE_BYTES: u64 = 1 << 60;

/// Most bytes that one CHUNK asks for. What has begun is finished even where a quota is used up meanwhile. 128 times what
/// our own coordinators ask for.
pub const MAX_CHUNK_BYTES: u64 = 128 * MAX_CHUNK_SLOTS * SLOT_BYTES as u64;

/// Most bytes of a request or response head that the household's side accepts; one buffer per connection.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Most bytes of a head between routers, and from unknown addresses (DESIGN section 7).
pub const MAX_PEER_HEAD_BYTES: usize = 4 * 1024;

/// Most header fields of one head: 64 x 32 bytes of stack while it is parsed.
pub const MAX_FIELDS: usize = 64;

/// Longest target URI that is pooled; longer ones are relayed (DESIGN section 7).
pub const MAX_URI_BYTES: usize = 2 * 1024;

/// Longest `User-Agent` and `Accept` of a client that go along to peers; with longer ones an INIT might not fit into a
/// head together with its signatures.
pub const MAX_CLIENT_FIELD_BYTES: usize = 256;

/// Longest validator (entity tag or date) that is pooled.
pub const MAX_VALIDATOR_BYTES: usize = 128;

/// Most lanes of one session: the original response, the own link's second connection, and peers.
pub const MAX_LANES: usize = 32;

/// Most interim (1xx) responses before a final one.
pub const MAX_INTERIM: u32 = 16;

/// Most requests that one lane has outstanding at a time.
pub const MAX_PIPELINE: usize = 16;

/// Longest first line of a chunk in the chunked coding, extensions and line end included. Only counted, not
/// kept. Below 2^16.
pub const MAX_CHUNK_LINE_BYTES: usize = 1024;

/// Longest trailer section of a chunked body. Only counted, not kept. Below 2^16.
pub const MAX_TRAILER_BYTES: usize = 8 * 1024;

/// Most ranges that the summary of a session lists; what touches is joined. 16 bytes each, and at most 43 in a
/// head of [`MAX_PEER_HEAD_BYTES`].
pub const MAX_SERVED_RANGES: usize = 64;

/// Most ranges of one CHUNK entry of the ledger, of 16 bytes each.
pub const MAX_LEDGER_RANGES: usize = 64;

/// Longest text of one field of the ledger, unescaped: a message head.
pub const MAX_LEDGER_TEXT_BYTES: usize = MAX_PEER_HEAD_BYTES;

/// Most pieces of a file that one router is asked for by another and that are not delivered yet, and one more: 32 bytes
/// each.
pub const MAX_PIECES: usize = MAX_PIPELINE + 1;

/// Longest line of the ledger: all of a head and of a URI escaped with five characters a byte, and the rest.
pub const MAX_LEDGER_LINE_BYTES: usize = 5 * (MAX_LEDGER_TEXT_BYTES + MAX_URI_BYTES) + 8 * 1024;

/// Most sessions with one peer that trust remembers each on its own: 56 bytes each. Of more within twelve hours the two
/// closest in time are joined, so nothing is forgotten.
pub const MAX_TRANSACTIONS: usize = 48;

/// Bytes of one place that is fetched again to check a peer (DESIGN section 7).
pub const PLACE_BYTES: usize = 16;

/// Most places of one chunk: what fits into a request's `Range` and its answer into [`MAX_PEER_HEAD_BYTES`] at a time.
pub const MAX_PLACES: usize = 24;

/// Most slots of one chunk of a peer, 256 KiB: what [`MAX_PLACES`] are meant for.
pub const MAX_CHUNK_SLOTS: u64 = 16;

/// Most chunks of peers of one session that are not released yet: 64 bytes each.
pub const MAX_INSPECTIONS: usize = 128;

/// Most places of them: 40 bytes each.
pub const MAX_OPEN_PLACES: usize = 512;

/// Longest announcement of a router, in bytes: three times what this version's takes, and one unfragmented datagram.
pub const MAX_ANNOUNCEMENT_BYTES: usize = 512;

/// Longest name of a router in an announcement.
pub const MAX_NAME_BYTES: usize = 32;

/// Most routers whose announcements are kept: 136 bytes each.
pub const MAX_HEARD: usize = 32;

/// Most of them with one address: a router has one key, and another one for a while after it was set up anew.
pub const MAX_HEARD_PER_ADDRESS: usize = 2;
