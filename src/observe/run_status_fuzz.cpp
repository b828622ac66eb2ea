// Fuzzes the reader of statuses and events: no text may crash it, and what it accepts can be written and read again.
//
// In:      any text.
// Thread:  one.
#include <cstdint>

#include "base/check.h"
#include "observe/event.h"
#include "observe/run_status.h"

using namespace stagecoach;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto status = observe::status_from_json(text)) {
    const auto again = observe::status_from_json(observe::to_json(status.value()));
    CHECK(again.ok(), "a status that was read can be written and read again");
  }
  if (const auto event = observe::parse_event(text)) {
    CHECK(observe::parse_event(observe::to_line(event.value())).ok(),
          "an event that was read can be written and read again");
    (void)observe::describe(event.value());
  }
  return 0;
}
