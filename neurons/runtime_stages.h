// Running a compiled network's stages: one thread's share of each.
#pragma once

#include "neurons/runtime_plan.h"
#include "neurons/team.h"

namespace nc::plan {

// What one thread counted.
struct Counters {
    explicit Counters(const Plan& plan)
        : list_events(plan.lists.size()),
          layer_events(plan.layers),
          spikes(plan.neurons),
          dense(plan.layers) {}
    std::vector<size_t> list_events;   // of the latest steps
    std::vector<size_t> layer_events;  // all; the first thread's
    std::vector<size_t> spikes;        // all
    std::vector<bool> dense;           // the path taken last; the first thread's
};

// Where and what to run: some steps of one sample.
struct Place {
    Team* team = nullptr;  // null: alone
    size_t thread = 0, threads = 1;
    char* base = nullptr;          // of the arena
    Counters* counters = nullptr;  // [threads]
    const float* input = nullptr;  // [steps, sample], or [sample] when the plan is not temporal
    size_t steps = 0;              // <= plan.chunk
    size_t first = 0;              // how many of the sample's steps came before
    bool fresh = false;            // membranes start here
    float* result = nullptr;       // receives [steps, K]

    void meet() const {
        if (team != nullptr) team->meet();
    }
};

// Ends with all threads having met. new_input: the sample that is not temporal is another one.
void run_stages(const Plan&, const Place&, bool new_input);

void run_stage(const Plan&, const Place&, size_t stage);

// The neurons that a stage runs, or null.
const Fire* neurons_of(const Stage&);

}  // namespace nc::plan
