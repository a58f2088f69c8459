// The threads that turn requests into prompts: template, pictures, tokens, keys.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/grammars.h"
#include "engine/known_pictures.h"
#include "engine/open_requests.h"

namespace idefics {

// The tiles of one picture, which were let go of and are wanted again. Whoever ordered them reads what became of it
// when it is `done`.
struct PixelOrder {
  PixelOrder(const std::shared_ptr<Job>& of, int number) : job(of), picture(number), file(of->pictures.file(number)) {}

  const std::shared_ptr<Job> job;
  const int picture;
  const PictureFile file;
  std::vector<uint8_t> tiles;
  std::optional<Error> error;
  std::atomic<bool> done = false;
};

// Requests are prepared beside the engine's steps, in the order in which they came, several at a time: a picture may
// take seconds to decode, and those behind it do not wait for that. One thread never takes a request with pictures, so
// that texts pass however many pictures are slow. Pictures are decoded side by side and cut one after the other, by
// threads of their own, which sleep otherwise.
class Preparation {
 public:
  static constexpr int kThreads = 4;
  static constexpr int kPictureThreads = kThreads - 1;  // pictures that are decoded at a time

  // Called on the threads of preparation.
  struct Deliver {
    // A job that was prepared; what is refused, failed or was cancelled is ended here.
    std::function<void(const std::shared_ptr<Job>&)> prepared;
    std::function<void()> cut_again;  // an order is done; must not throw
  };

  Preparation(const Processor& processor, const EngineOptions& options, OpenRequests& open, PixelBudget& pixels,
              Deliver deliver);
  ~Preparation();

  void post(std::shared_ptr<Job> job);
  // Goes before all requests, since it is for one that is being computed.
  void post(std::shared_ptr<PixelOrder> order);
  // Waits for what was begun; the rest, and all that is posted from now on, is cancelled or dropped.
  void stop();

 private:
  struct Work {
    std::shared_ptr<Job> job;  // one of the two
    std::shared_ptr<PixelOrder> order;
    bool has_pictures;
  };

  void run();
  bool take(Work& work);
  void finish(const Work& work);
  void prepare(const std::shared_ptr<Job>& job);
  void prepare(Job& job);
  Prompt make_prompt(Job& job, std::vector<std::vector<TileKey>>& keys);
  std::vector<TileKey> tile_keys(std::string_view salt, const PromptImage& image);
  void cut_again(PixelOrder& order);

  const Processor& processor_;
  const EngineOptions& options_;
  OpenRequests& open_;
  PixelBudget& pixels_;
  const Deliver deliver_;
  Grammars grammars_;
  KnownPictures known_;
  CuttingThreads cutting_;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Work> queue_;
  int with_pictures_ = 0;  // threads that are at work on pictures
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace idefics
