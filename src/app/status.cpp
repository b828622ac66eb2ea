#include "app/status.h"

#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>

#include "app/network.h"
#include "app/view.h"
#include "link/identity.h"
#include "observe/run_status.h"
#include "wire/codec.h"
#include "world/real/loop.h"
#include "world/real/quic_endpoint.h"

namespace stagecoach::app {

using base::Duration;
using base::Error;
using base::ErrorCode;
using base::Instant;
using base::Result;
using world::real::QuicEndpoint;

namespace {

Result<link::JoinLink> link_of(const std::string& target) {
  if (target.starts_with("stagecoach://")) return link::parse_join_link(target);
  const auto path = std::filesystem::path(target) / "link";
  std::ifstream file(path);
  std::string text;
  if (!std::getline(file, text))
    return Error{ErrorCode::not_found, target + " is neither a link (stagecoach://…) nor a run's folder (it has no file \"link\")"};
  return link::parse_join_link(text);
}

Result<std::string> ask(const link::JoinLink& link) {
  auto identity = link::Identity::generate();
  if (!identity) return identity.error();
  auto endpoint = QuicEndpoint::open(*identity, {});
  if (!endpoint) return endpoint.error();
  auto host = resolve(link.host);
  if (!host) return host.error();
  const link::Address address{*host, link.port};
  (*endpoint)->dial(link.coordinator, {&address, 1});
  std::optional<Result<std::string>> answer;
  world::real::Wakeup wakeup;
  const Instant give_up = world::real::monotonic_now() + Duration::seconds(10);
  const auto on_link = [&](link::Event& event) {
    if (std::holds_alternative<link::LinkUp>(event)) {
      if (auto sent = (*endpoint)->send(link.coordinator, base::make_payload(wire::encode(wire::StatusRequest{})), {}); !sent)
        answer = sent.error();
    } else if (const auto* down = std::get_if<link::LinkDown>(&event)) {
      if (!answer)
        answer = Error{ErrorCode::unavailable, "no coordinator answers at " + link.host + ":" + std::to_string(link.port) + " (" +
                                                   link::to_string(down->reason) + ": " + down->text + "): the run is not running there"};
    } else if (const auto* arrived = std::get_if<link::FrameArrived>(&event)) {
      const auto message = wire::decode(*arrived->frame);
      if (!message) answer = message.error();
      else if (const auto* reply = std::get_if<wire::StatusReply>(&*message)) answer = Result<std::string>(reply->json);
    }
  };
  const auto on_time = [&] {
    if (!answer) answer = Error{ErrorCode::unavailable, "the coordinator is reached but does not answer: it is busy or hangs"};
  };
  world::real::Loop loop(**endpoint, (*endpoint)->fd(), wakeup,
                         {on_link, [] {}, on_time, [&] { return give_up; }, [&] { return answer.has_value(); }});
  loop.run();
  loop.say_goodbye("asked and answered", Duration());
  return *answer;
}

}  // namespace

int run_status(const StatusOptions& options) {
  const auto complain = [](const Error& error) {
    std::cerr << "stagecoach: " << error.message << "\n";
    return 1;
  };
  auto link = link_of(options.target);
  if (!link) return complain(link.error());
  auto json = ask(*link);
  if (!json) return complain(json.error());
  auto status = observe::status_from_json(*json);
  if (!status) return complain(status.error().within("the coordinator's answer"));
  if (options.json) std::cout << observe::to_json(*status) << std::endl;
  else std::cout << render_text(*status, terminal_options(1)) << std::flush;
  return 0;
}

}  // namespace stagecoach::app
