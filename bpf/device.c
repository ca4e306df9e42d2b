// SPDX-License-Identifier: GPL-2.0-only
/* Which device an I/O is for. */

#ifdef HAVE_QUEUE_DISK
#define disk_of_request(rq) ((rq)->q->disk)
#else
#define disk_of_request(rq) ((rq)->rq_disk)
#endif

static inline u32 dev_of_disk(struct gendisk *disk)
{
	return disk->major << 20 | disk->first_minor;
}

static inline u32 dev_of_bio(struct bio *bio)
{
#ifdef HAVE_BI_BDEV
	return dev_of_disk(bio->bi_bdev->bd_disk);
#else
	return dev_of_disk(bio->bi_disk);
#endif
}

/* The partition, or the disk if there is none. */
static inline u32 partition_of_bio(struct bio *bio)
{
#ifdef HAVE_BI_BDEV
	return bio->bi_bdev->bd_dev;
#else
	return dev_of_bio(bio);
#endif
}

static inline u8 partno_of_bio(struct bio *bio)
{
#if defined(HAVE_BD_FLAGS)
	return bio->bi_bdev->__bd_flags & 0xff;
#elif defined(HAVE_BI_BDEV)
	return bio->bi_bdev->bd_partno;
#else
	return bio->bi_partno;
#endif
}
