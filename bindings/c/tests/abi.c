/* Sizes and offsets of rtcore.h on LP64, as the library has them: made by the test of this name in
 * src/tests.rs. */
#include "rtcore.h"

_Static_assert(sizeof(rtcore_error) == 1024, "rtcore_error");

_Static_assert(sizeof(rtcore_message) == 160, "rtcore_message");
_Static_assert(offsetof(rtcore_message, kind) == 0, "rtcore_message.kind");
_Static_assert(offsetof(rtcore_message, flags) == 4, "rtcore_message.flags");
_Static_assert(offsetof(rtcore_message, data) == 8, "rtcore_message.data");
_Static_assert(offsetof(rtcore_message, len) == 16, "rtcore_message.len");
_Static_assert(offsetof(rtcore_message, sequence) == 24, "rtcore_message.sequence");
_Static_assert(offsetof(rtcore_message, missed) == 32, "rtcore_message.missed");
_Static_assert(offsetof(rtcore_message, intended_ns) == 40, "rtcore_message.intended_ns");
_Static_assert(offsetof(rtcore_message, sent_ns) == 48, "rtcore_message.sent_ns");
_Static_assert(offsetof(rtcore_message, received_ns) == 56, "rtcore_message.received_ns");
_Static_assert(offsetof(rtcore_message, reply_to) == 64, "rtcore_message.reply_to");
_Static_assert(offsetof(rtcore_message, pid) == 72, "rtcore_message.pid");
_Static_assert(offsetof(rtcore_message, uid) == 76, "rtcore_message.uid");
_Static_assert(offsetof(rtcore_message, signo) == 80, "rtcore_message.signo");
_Static_assert(offsetof(rtcore_message, mq_priority) == 84, "rtcore_message.mq_priority");
_Static_assert(offsetof(rtcore_message, signal_value) == 88, "rtcore_message.signal_value");
_Static_assert(offsetof(rtcore_message, ending_kind) == 96, "rtcore_message.ending_kind");
_Static_assert(offsetof(rtcore_message, ending_value) == 100, "rtcore_message.ending_value");
_Static_assert(offsetof(rtcore_message, count) == 104, "rtcore_message.count");
_Static_assert(offsetof(rtcore_message, endpoint) == 112, "rtcore_message.endpoint");
_Static_assert(offsetof(rtcore_message, from) == 120, "rtcore_message.from");
_Static_assert(offsetof(rtcore_message, lane) == 128, "rtcore_message.lane");
_Static_assert(offsetof(rtcore_message, route) == 136, "rtcore_message.route");
_Static_assert(offsetof(rtcore_message, process) == 144, "rtcore_message.process");
_Static_assert(offsetof(rtcore_message, reason) == 152, "rtcore_message.reason");

_Static_assert(sizeof(rtcore_options) == 48, "rtcore_options");
_Static_assert(offsetof(rtcore_options, size) == 0, "rtcore_options.size");
_Static_assert(offsetof(rtcore_options, instance) == 8, "rtcore_options.instance");
_Static_assert(offsetof(rtcore_options, socket) == 16, "rtcore_options.socket");
_Static_assert(offsetof(rtcore_options, timeout_ns) == 24, "rtcore_options.timeout_ns");
_Static_assert(offsetof(rtcore_options, tid) == 32, "rtcore_options.tid");
_Static_assert(offsetof(rtcore_options, skin) == 36, "rtcore_options.skin");
_Static_assert(offsetof(rtcore_options, cobalt_library) == 40, "rtcore_options.cobalt_library");

_Static_assert(sizeof(rtcore_peer) == 48, "rtcore_peer");
_Static_assert(offsetof(rtcore_peer, process) == 0, "rtcore_peer.process");
_Static_assert(offsetof(rtcore_peer, state) == 32, "rtcore_peer.state");
_Static_assert(offsetof(rtcore_peer, pid) == 36, "rtcore_peer.pid");
_Static_assert(offsetof(rtcore_peer, ending_kind) == 40, "rtcore_peer.ending_kind");
_Static_assert(offsetof(rtcore_peer, ending_value) == 44, "rtcore_peer.ending_value");

_Static_assert(sizeof(rtcore_channel) == 216, "rtcore_channel");
_Static_assert(offsetof(rtcore_channel, endpoint) == 0, "rtcore_channel.endpoint");
_Static_assert(offsetof(rtcore_channel, other) == 32, "rtcore_channel.other");
_Static_assert(offsetof(rtcore_channel, process) == 64, "rtcore_channel.process");
_Static_assert(offsetof(rtcore_channel, lane) == 96, "rtcore_channel.lane");
_Static_assert(offsetof(rtcore_channel, route) == 128, "rtcore_channel.route");
_Static_assert(offsetof(rtcore_channel, role) == 160, "rtcore_channel.role");
_Static_assert(offsetof(rtcore_channel, flags) == 164, "rtcore_channel.flags");
_Static_assert(offsetof(rtcore_channel, priority) == 168, "rtcore_channel.priority");
_Static_assert(offsetof(rtcore_channel, signo) == 172, "rtcore_channel.signo");
_Static_assert(offsetof(rtcore_channel, slots) == 176, "rtcore_channel.slots");
_Static_assert(offsetof(rtcore_channel, msgsize) == 180, "rtcore_channel.msgsize");
_Static_assert(offsetof(rtcore_channel, keep) == 184, "rtcore_channel.keep");
_Static_assert(offsetof(rtcore_channel, reserved) == 188, "rtcore_channel.reserved");
_Static_assert(offsetof(rtcore_channel, block_ns) == 192, "rtcore_channel.block_ns");
_Static_assert(offsetof(rtcore_channel, ttl_ns) == 200, "rtcore_channel.ttl_ns");
_Static_assert(offsetof(rtcore_channel, deadline_ns) == 208, "rtcore_channel.deadline_ns");

_Static_assert(sizeof(rtcore_inbox_counters) == 72, "rtcore_inbox_counters");
_Static_assert(offsetof(rtcore_inbox_counters, received) == 0, "rtcore_inbox_counters.received");
_Static_assert(offsetof(rtcore_inbox_counters, duplicates) == 8, "rtcore_inbox_counters.duplicates");
_Static_assert(offsetof(rtcore_inbox_counters, missed) == 16, "rtcore_inbox_counters.missed");
_Static_assert(offsetof(rtcore_inbox_counters, expired) == 24, "rtcore_inbox_counters.expired");
_Static_assert(offsetof(rtcore_inbox_counters, superseded) == 32, "rtcore_inbox_counters.superseded");
_Static_assert(offsetof(rtcore_inbox_counters, late) == 40, "rtcore_inbox_counters.late");
_Static_assert(offsetof(rtcore_inbox_counters, torn) == 48, "rtcore_inbox_counters.torn");
_Static_assert(offsetof(rtcore_inbox_counters, corrupt) == 56, "rtcore_inbox_counters.corrupt");
_Static_assert(offsetof(rtcore_inbox_counters, events_lost) == 64, "rtcore_inbox_counters.events_lost");

_Static_assert(sizeof(rtcore_notice) == 112, "rtcore_notice");
_Static_assert(offsetof(rtcore_notice, signo) == 0, "rtcore_notice.signo");
_Static_assert(offsetof(rtcore_notice, flags) == 4, "rtcore_notice.flags");
_Static_assert(offsetof(rtcore_notice, value) == 8, "rtcore_notice.value");
_Static_assert(offsetof(rtcore_notice, data) == 16, "rtcore_notice.data");
_Static_assert(offsetof(rtcore_notice, len) == 24, "rtcore_notice.len");
_Static_assert(offsetof(rtcore_notice, pid) == 32, "rtcore_notice.pid");
_Static_assert(offsetof(rtcore_notice, uid) == 36, "rtcore_notice.uid");
_Static_assert(offsetof(rtcore_notice, received_ns) == 40, "rtcore_notice.received_ns");
_Static_assert(offsetof(rtcore_notice, sequence) == 48, "rtcore_notice.sequence");
_Static_assert(offsetof(rtcore_notice, missed) == 56, "rtcore_notice.missed");
_Static_assert(offsetof(rtcore_notice, intended_ns) == 64, "rtcore_notice.intended_ns");
_Static_assert(offsetof(rtcore_notice, sent_ns) == 72, "rtcore_notice.sent_ns");
_Static_assert(offsetof(rtcore_notice, endpoint) == 80, "rtcore_notice.endpoint");
_Static_assert(offsetof(rtcore_notice, from) == 88, "rtcore_notice.from");
_Static_assert(offsetof(rtcore_notice, lane) == 96, "rtcore_notice.lane");
_Static_assert(offsetof(rtcore_notice, route) == 104, "rtcore_notice.route");

_Static_assert(sizeof(rtcore_signals_counters) == 40, "rtcore_signals_counters");
_Static_assert(offsetof(rtcore_signals_counters, received) == 0, "rtcore_signals_counters.received");
_Static_assert(offsetof(rtcore_signals_counters, doorbells) == 8, "rtcore_signals_counters.doorbells");
_Static_assert(offsetof(rtcore_signals_counters, duplicates) == 16, "rtcore_signals_counters.duplicates");
_Static_assert(offsetof(rtcore_signals_counters, unhandled) == 24, "rtcore_signals_counters.unhandled");
_Static_assert(offsetof(rtcore_signals_counters, calls) == 32, "rtcore_signals_counters.calls");

_Static_assert(sizeof(rtcore_ready) == 16, "rtcore_ready");
_Static_assert(offsetof(rtcore_ready, key) == 0, "rtcore_ready.key");
_Static_assert(offsetof(rtcore_ready, priority) == 8, "rtcore_ready.priority");
_Static_assert(offsetof(rtcore_ready, flags) == 12, "rtcore_ready.flags");

_Static_assert(sizeof(rtcore_realtime) == 48, "rtcore_realtime");
_Static_assert(offsetof(rtcore_realtime, size) == 0, "rtcore_realtime.size");
_Static_assert(offsetof(rtcore_realtime, lane) == 8, "rtcore_realtime.lane");
_Static_assert(offsetof(rtcore_realtime, below) == 16, "rtcore_realtime.below");
_Static_assert(offsetof(rtcore_realtime, cpu) == 20, "rtcore_realtime.cpu");
_Static_assert(offsetof(rtcore_realtime, flags) == 24, "rtcore_realtime.flags");
_Static_assert(offsetof(rtcore_realtime, reserved) == 28, "rtcore_realtime.reserved");
_Static_assert(offsetof(rtcore_realtime, stack) == 32, "rtcore_realtime.stack");
_Static_assert(offsetof(rtcore_realtime, heap) == 40, "rtcore_realtime.heap");

_Static_assert(sizeof(rtcore_breaches) == 40, "rtcore_breaches");
_Static_assert(offsetof(rtcore_breaches, heap_calls) == 0, "rtcore_breaches.heap_calls");
_Static_assert(offsetof(rtcore_breaches, minor_faults) == 8, "rtcore_breaches.minor_faults");
_Static_assert(offsetof(rtcore_breaches, major_faults) == 16, "rtcore_breaches.major_faults");
_Static_assert(offsetof(rtcore_breaches, voluntary_switches) == 24, "rtcore_breaches.voluntary_switches");
_Static_assert(offsetof(rtcore_breaches, involuntary_switches) == 32, "rtcore_breaches.involuntary_switches");
