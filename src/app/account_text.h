// The accounts of a run for people and for programs, simulated or real alike.
//
// In:      an AccountTable. Out: its table as text, its members as JSON.
// Thread:  any; pure.
// Why:     a prediction and what came of it can only be compared where both are told in the same columns and words.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "observe/accounting.h"

namespace stagecoach::app {

/// "12.3 ms", "4.5 min"
std::string time_text(base::Duration d);
/// "2.30 MB"
std::string amount_text(double bytes);

/// A row a stage, and one for all, in percent.
std::string parts_table(const observe::AccountTable& account);
/// The parts in hundredths of a percent, rounded so that they add up to 10,000; all zero where there is no time.
std::vector<int> hundredths(const observe::Parts& parts);
/// A line for each event of trouble, and what they come to; empty where there was none. `began`: from when times are told.
std::string incidents_text(const observe::AccountTable& account, base::Instant began);

/// Of all that the devices did, 0 … 1: what was committed, and what was done again.
double share_of_work(const observe::AccountTable& account, base::Duration repeated);

/// (P − 1) / (M / R + P − 1)
double flush_arithmetic(std::size_t stages, std::int64_t microbatches, std::uint64_t replicas);
/// The flush beside its arithmetic.
std::string flush_text(const observe::Parts& all, double arithmetic);

double tokens_per_s(const observe::AccountTable& account);
/// The members that `simulate --json` and `account --json` have in common (docs/SIMULATE.md).
void add_account(const observe::AccountTable& account, base::Instant began, nlohmann::ordered_json& out);

}  // namespace stagecoach::app
