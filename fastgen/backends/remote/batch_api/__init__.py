"""The Batch APIs of services: requests by the file, at a lower price, with answers within a day.

backend     runs the rows of a batch with the backend that also calls directly, over and over, until no answer is
            missing
collecting  stands in for the HTTP client: takes requests down, and gives the answers once they are there
courier     brings parcels (output/outbox.py) to the service, and their answers back
files       what the files of both services have in common
openai, gemini   what the two services call uploading, submitting, finding, looking and fetching
"""
